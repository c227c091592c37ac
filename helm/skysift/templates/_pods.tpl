{{/* The parts that all pods share. */}}

{{- define "skysift.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "skysift.containerSecurity" -}}
allowPrivilegeEscalation: false
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Requests equal to limits. Argument: a group of values (resources; gpus and resourceName where it has them). */}}
{{- define "skysift.resources" -}}
{{- $amounts := dict "cpu" (toString .resources.cpu) "memory" .resources.memory -}}
{{- $_ := set $amounts "ephemeral-storage" .resources.ephemeralStorage -}}
{{- with .gpus }}{{ $_ := set $amounts $.resourceName (toString .) }}{{ end -}}
requests: {{- toYaml $amounts | nindent 2 }}
limits: {{- toYaml $amounts | nindent 2 }}
{{- end }}

{{- define "skysift.env" -}}
{{- range $name, $value := .Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- range .Values.secretEnv }}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secretName }}
      key: {{ .key }}
{{- end }}
{{- end }}

{{/* What every container has. Argument: the chart's context. */}}
{{- define "skysift.container" -}}
image: {{ include "skysift.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext: {{- include "skysift.containerSecurity" . | nindent 2 }}
{{- end }}

{{/* What a container has that runs skysift: the environment with its secrets, the config and the workspace. */}}
{{- define "skysift.work" -}}
{{- with include "skysift.env" . | trim }}
env: {{- . | nindent 2 }}
{{- end }}
volumeMounts:
  - name: config
    mountPath: /etc/skysift
    readOnly: true
  - name: workspace
    mountPath: /workspace
{{- end }}

{{/* A pod's account, security and volumes. Argument: the chart's context. */}}
{{- define "skysift.pod" -}}
serviceAccountName: {{ include "skysift.serviceAccount" . }}
automountServiceAccountToken: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
securityContext: {{- include "skysift.podSecurity" . | nindent 2 }}
volumes:
  - name: config
    configMap:
      name: {{ include "skysift.configMap" . }}
  - name: workspace
    {{- if .Values.workspace.existingClaim }}
    persistentVolumeClaim:
      claimName: {{ .Values.workspace.existingClaim }}
    {{- else }}
    emptyDir:
      sizeLimit: {{ .Values.workspace.size }}
    {{- end }}
{{- end }}

{{/* The template of a Ray pod. Argument: (dict "root" context "group" values "name" container-name "annotations" map). */}}
{{- define "skysift.rayPod" -}}
metadata:
  labels: {{- include "skysift.podLabels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "skysift.pod" .root | nindent 2 }}
  {{- with .group.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .group.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .name }}
      {{- include "skysift.container" .root | nindent 6 }}
      {{- include "skysift.work" .root | nindent 6 }}
      resources: {{- include "skysift.resources" .group | nindent 8 }}
{{- end }}
