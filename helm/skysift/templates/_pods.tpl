{{/* The parts that all pods share: together they pass the restricted Pod Security Standard. */}}

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

{{/* Requests equal to limits, but for cpuRequest. Argument: a group of values (resources; gpus and resourceName where it has them). */}}
{{- define "skysift.resources" -}}
{{- $amounts := dict "cpu" (toString .resources.cpu) "memory" .resources.memory -}}
{{- $_ := set $amounts "ephemeral-storage" .resources.ephemeralStorage -}}
{{- with .gpus }}{{ $_ := set $amounts $.resourceName (toString .) }}{{ end -}}
{{- $asked := toString (.resources.cpuRequest | default .resources.cpu) -}}
{{- if gt (include "skysift.millis" $asked | int64) (include "skysift.millis" $amounts.cpu | int64) -}}
{{- fail (printf "cpuRequest %s is more than cpu %s, which is the limit: lower it, or leave it out" $asked $amounts.cpu) -}}
{{- end -}}
requests: {{- merge (dict "cpu" $asked) $amounts | toYaml | nindent 2 }}
limits: {{- toYaml $amounts | nindent 2 }}
{{- end }}

{{/* CPU cores as thousandths. Argument: such as "1" or "500m". */}}
{{- define "skysift.millis" -}}
{{- hasSuffix "m" . | ternary (trimSuffix "m" .) (printf "%s000" .) -}}
{{- end }}

{{/* A variable from a Secret. Argument: (dict "name" variable "secret" its-name "key" its-key). */}}
{{- define "skysift.secretVariable" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .key }}
{{- end }}

{{/*
The environment of a container that runs skysift: only the secrets of the stores it talks to.
Argument: (dict "root" context "stores" list).
*/}}
{{- define "skysift.env" -}}
{{- $secrets := .root.Values.secrets -}}
- name: SKYSIFT_LOG
  value: {{ .root.Values.logLevel | quote }}
- name: SKYSIFT_LOG_FORMAT
  value: json
{{- range $name, $value := .root.Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- if has "postgres" .stores }}
{{- with include "skysift.postgresSecret" .root }}
{{ include "skysift.secretVariable" (dict "name" "PGPASSWORD" "secret" . "key" "password") }}
{{- end }}
{{- end }}
{{- if has "milvus" .stores }}
{{- with $secrets.milvus }}
{{ include "skysift.secretVariable" (dict "name" "MILVUS_TOKEN" "secret" . "key" "token") }}
{{- end }}
{{- end }}
{{- if has "objects" .stores }}
{{- with $secrets.objects }}
{{ include "skysift.secretVariable" (dict "name" "AWS_ACCESS_KEY_ID" "secret" . "key" "access-key-id") }}
{{ include "skysift.secretVariable" (dict "name" "AWS_SECRET_ACCESS_KEY" "secret" . "key" "secret-access-key") }}
{{- end }}
{{- end }}
{{- range .root.Values.secretEnv }}
{{ include "skysift.secretVariable" (dict "name" .name "secret" .secretName "key" .key) }}
{{- end }}
{{- end }}

{{/* Threads of NumPy and PyTorch as the container has CPUs, not as its node has; Ray sets them for its workers' tasks. Argument: the chart's context. */}}
{{- define "skysift.threads" -}}
{{- if not (hasKey .Values.env "OMP_NUM_THREADS") -}}
- name: OMP_NUM_THREADS
  valueFrom:
    resourceFieldRef:
      resource: limits.cpu
{{- end }}
{{- end }}

{{/* What every container has. Argument: the chart's context. */}}
{{- define "skysift.container" -}}
image: {{ include "skysift.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext: {{- include "skysift.containerSecurity" . | nindent 2 }}
{{- end }}

{{/* A container's mounts of the config and the workspace. */}}
{{- define "skysift.mounts" -}}
volumeMounts:
  - name: config
    mountPath: /etc/skysift
    readOnly: true
  - name: workspace
    mountPath: /workspace
{{- end }}

{{/*
A pod's account, security, volumes and place. A group's own place goes before the chart's.
Argument: (dict "root" context "group" values "account" name "token" whether it gets the account's token).
*/}}
{{- define "skysift.pod" -}}
{{- $values := .root.Values -}}
{{- $group := .group -}}
serviceAccountName: {{ .account | default (include "skysift.serviceAccount" .root) }}
automountServiceAccountToken: {{ .token | default false }}
{{- with $values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
terminationGracePeriodSeconds: {{ $values.gracePeriodSeconds | int64 }}
securityContext: {{- include "skysift.podSecurity" . | nindent 2 }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
{{- with (get $group $key | default (get $values $key)) }}
{{ $key }}: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
volumes:
  - name: config
    configMap:
      name: {{ include "skysift.configMap" .root }}
  - name: workspace
    {{- if $values.workspace.existingClaim }}
    persistentVolumeClaim:
      claimName: {{ $values.workspace.existingClaim }}
    {{- else }}
    emptyDir:
      sizeLimit: {{ $values.workspace.size }}
    {{- end }}
{{- end }}

{{/* An init container that waits for PostgreSQL and its migrations. Argument: the chart's context. */}}
{{- define "skysift.wait" -}}
- name: wait-for-schema
  {{- include "skysift.container" . | nindent 2 }}
  command: [skysift, db, wait, --config, /etc/skysift/skysift.toml, --seconds, {{ .Values.migrations.waitSeconds | int64 | quote }}]
  env: {{- include "skysift.env" (dict "root" . "stores" (list "postgres")) | nindent 4 }}
  {{- include "skysift.mounts" . | nindent 2 }}
  resources: {{- include "skysift.resources" .Values.migrations | nindent 4 }}
{{- end }}
