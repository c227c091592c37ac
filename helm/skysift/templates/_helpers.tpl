{{/* Names and labels. */}}

{{- define "skysift.name" -}}
{{- $name := .Release.Name | replace "." "-" -}}
{{- if not (contains "skysift" $name) }}{{ $name = printf "%s-skysift" $name }}{{ end -}}
{{- $name | trunc 28 | trimSuffix "-" -}}
{{- end }}

{{/* The run of a job. Argument: (dict "root" context "job" values of the job, or an empty dict). */}}
{{- define "skysift.run" -}}
{{- .job.run | default .root.Values.run | default (.root.Release.Name | replace "." "-") -}}
{{- end }}

{{- define "skysift.labels" -}}
app.kubernetes.io/name: skysift
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{/*
Labels of a pod, by which the NetworkPolicies know it; app.kubernetes.io/name is KubeRay's to set, whose head Service
selects by it. Argument: (dict "root" context "component" name).
*/}}
{{- define "skysift.podLabels" -}}
app.kubernetes.io/part-of: skysift
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "skysift.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "skysift.name" .) -}}
{{- end }}

{{- define "skysift.headAccount" -}}
{{- .Values.serviceAccount.headName | default (printf "%s-head" (include "skysift.name" .)) -}}
{{- end }}

{{- define "skysift.launcherAccount" -}}
{{ include "skysift.name" . }}-launcher
{{- end }}

{{- define "skysift.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else }}{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}{{ end -}}
{{- end }}

{{/* The databases' addresses: the given ones, else those of the resources that the chart makes. */}}
{{- define "skysift.postgresUrl" -}}
{{- if .Values.config.stores.postgres }}{{ .Values.config.stores.postgres }}
{{- else if .Values.postgres.create }}postgresql://skysift@{{ include "skysift.name" . }}-postgres-rw:5432/skysift{{ end -}}
{{- end }}

{{- define "skysift.milvusUrl" -}}
{{- if .Values.config.stores.milvus }}{{ .Values.config.stores.milvus }}
{{- else if .Values.milvus.create }}http://{{ include "skysift.name" . }}-milvus{{ with .Values.milvus.namespace }}.{{ . }}{{ end }}:19530{{ end -}}
{{- end }}

{{- define "skysift.postgresSecret" -}}
{{- if .Values.secrets.postgres }}{{ .Values.secrets.postgres }}
{{- else if .Values.postgres.create }}{{ include "skysift.name" . }}-postgres-app{{ end -}}
{{- end }}
