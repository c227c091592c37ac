{{/* Names and labels. */}}

{{- define "skysift.name" -}}
{{- $name := .Release.Name | replace "." "-" -}}
{{- if not (contains "skysift" $name) }}{{ $name = printf "%s-skysift" $name }}{{ end -}}
{{- $name | trunc 38 | trimSuffix "-" -}}
{{- end }}

{{- define "skysift.run" -}}
{{- .Values.run | default (.Release.Name | replace "." "-") -}}
{{- end }}

{{- define "skysift.labels" -}}
app.kubernetes.io/name: skysift
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{/* KubeRay's head Service selects its pods by app.kubernetes.io/name, which is therefore KubeRay's to set. */}}
{{- define "skysift.podLabels" -}}
app.kubernetes.io/part-of: skysift
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "skysift.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "skysift.name" .) -}}
{{- end }}

{{- define "skysift.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else }}{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}{{ end -}}
{{- end }}
