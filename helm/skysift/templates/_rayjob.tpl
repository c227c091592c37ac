{{/* A job's profile, by name. Argument: (dict "root" context "profile" name). */}}
{{- define "skysift.profile" -}}
{{- $profile := get .root.Values.profiles .profile -}}
{{- if not $profile -}}
{{- fail (printf "there is no profile %q: profiles has %s" .profile (keys .root.Values.profiles | sortAlpha | join ", ")) -}}
{{- end -}}
{{- toYaml $profile -}}
{{- end }}

{{/* Whether Ray's autoscaler runs: Kueue admits a fixed size, unless the job is marked elastic. */}}
{{- define "skysift.autoscaling" -}}
{{- if and .profile.autoscaling (or (not .root.Values.kueue.queue) .root.Values.kueue.elastic) }}true{{ end -}}
{{- end }}

{{/* Labels and annotations of a RayJob beside the chart's: Kueue's. */}}
{{- define "skysift.queueLabels" -}}
{{- with .Values.kueue.queue }}
kueue.x-k8s.io/queue-name: {{ . }}
{{- with $.Values.kueue.priorityClass }}
kueue.x-k8s.io/priority-class: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/*
The spec of a RayJob.
Argument: (dict "root" context "profile" name "entrypoint" command).
*/}}
{{- define "skysift.jobSpec" -}}
{{- $root := .root -}}
{{- $job := .root.Values.job -}}
{{- $profile := include "skysift.profile" . | fromYaml -}}
{{- $scaling := eq (include "skysift.autoscaling" (dict "root" .root "profile" $profile)) "true" -}}
entrypoint: {{ .entrypoint }}
submissionMode: K8sJobMode
shutdownAfterJobFinishes: true
ttlSecondsAfterFinished: {{ $job.ttlSecondsAfterFinished | int64 }}
backoffLimit: {{ $job.backoffLimit | int64 }}
activeDeadlineSeconds: {{ $profile.activeDeadlineSeconds | int64 }}
preRunningDeadlineSeconds: {{ $job.preRunningDeadlineSeconds | int64 }}
submitterConfig:
  backoffLimit: {{ $job.submitterBackoffLimit | int64 }}
submitterPodTemplate: {{- include "skysift.submitter" .root | nindent 2 }}
rayClusterSpec:
  rayVersion: {{ .root.Values.ray.version | quote }}
  authOptions:
    mode: token
    {{- with .root.Values.secrets.ray }}
    secretName: {{ . }}
    {{- end }}
  {{- if $scaling }}
  enableInTreeAutoscaling: true
  autoscalerOptions:
    version: v2
    idleTimeoutSeconds: {{ .root.Values.ray.idleTimeoutSeconds | int64 }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    securityContext: {{- include "skysift.containerSecurity" . | nindent 6 }}
    resources: {{- include "skysift.resources" .root.Values.ray.autoscaler | nindent 6 }}
  {{- end }}
  headGroupSpec:
    rayStartParams:
      num-cpus: "0"
      dashboard-host: 0.0.0.0
    template: {{- include "skysift.head" (dict "root" .root "profile" $profile "scaling" $scaling) | nindent 6 }}
  workerGroupSpecs:
    {{- range $name, $group := $profile.workers }}
    - groupName: {{ $name }}
      {{- include "skysift.workers" (dict "root" $root "group" $group "scaling" $scaling) | nindent 6 }}
    {{- end }}
{{- end }}

{{/* The head: the run's driver is here, no tasks. It waits for the tables. */}}
{{- define "skysift.head" -}}
metadata:
  labels: {{- include "skysift.podLabels" (dict "root" .root "component" "ray-head") | nindent 4 }}
  annotations:
    cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
spec:
  {{- $pod := dict "root" .root "group" .profile.head "account" (include "skysift.headAccount" .root) "token" .scaling }}
  {{- include "skysift.pod" $pod | nindent 2 }}
  initContainers: {{- include "skysift.wait" .root | nindent 4 }}
  containers:
    - name: ray-head
      {{- include "skysift.container" .root | nindent 6 }}
      env: {{- include "skysift.env" (dict "root" .root "stores" (list "postgres" "milvus" "objects")) | nindent 8 }}
        {{- include "skysift.threads" .root | nindent 8 }}
        {{- include "skysift.sizes" . | nindent 8 }}
        - name: SKYSIFT_NAMESPACE
          valueFrom:
            fieldRef:
              fieldPath: metadata.namespace
        # Seconds that Ray leaves the driver between SIGTERM and SIGKILL.
        - name: RAY_JOB_STOP_WAIT_TIME_S
          value: {{ .root.Values.gracePeriodSeconds | int64 | quote }}
      # A deleted pod's driver ends its chunks first; Ray's own end would not wait for it.
      lifecycle:
        preStop:
          exec:
            command: {{ include "skysift.stop" .root }}
      ports:
        # The head's Service gets these ports and no others, where KubeRay makes it one with an address of its own.
        - {name: gcs-server, containerPort: 6379, protocol: TCP}
        - {name: dashboard, containerPort: 8265, protocol: TCP}
        - {name: metrics, containerPort: 8080, protocol: TCP}
      {{- include "skysift.mounts" . | nindent 6 }}
      resources: {{- include "skysift.resources" .profile.head | nindent 8 }}
{{- end }}

{{/* The head's preStop command, as JSON. Argument: the chart's context. */}}
{{- define "skysift.stop" -}}
{{- $seconds := max 1 (sub (int64 .Values.gracePeriodSeconds) 15) -}}
{{- list "python" "-m" "pipeline.termination" (toString $seconds) | toJson -}}
{{- end }}

{{/* What the cluster can grow to, which the driver cannot see while groups are small. */}}
{{- define "skysift.sizes" -}}
{{- $cpus := 0 }}{{ $gpus := 0 }}{{ $largest := 0 -}}
{{- range .profile.workers -}}
{{- $cpus = add $cpus (mul .max .resources.cpu) -}}
{{- $gpus = add $gpus (mul .max (.gpus | default 0)) -}}
{{- $largest = max $largest .resources.cpu -}}
{{- end -}}
- name: SKYSIFT_MAX_CPUS
  value: {{ $cpus | quote }}
- name: SKYSIFT_MAX_GPUS
  value: {{ $gpus | quote }}
- name: SKYSIFT_NODE_CPUS
  value: {{ $largest | quote }}
{{- end }}

{{/* A worker group: between min and max with the autoscaler, else of max. Argument: (dict "root" "group" "scaling"). */}}
{{- define "skysift.workers" -}}
{{- $replicas := ternary .group.min .group.max .scaling | int64 -}}
replicas: {{ $replicas }}
minReplicas: {{ $replicas }}
maxReplicas: {{ .group.max | int64 }}
{{- with .group.gpus }}
rayStartParams:
  num-gpus: {{ . | toString | quote }}
{{- else }}
rayStartParams: {}
{{- end }}
template:
  metadata:
    labels: {{- include "skysift.podLabels" (dict "root" .root "component" "ray-worker") | nindent 6 }}
  spec:
    {{- $tolerations := concat (.group.tolerations | default .root.Values.tolerations) .root.Values.spot.tolerations }}
    {{- $group := merge (dict "tolerations" $tolerations) .group }}
    {{- include "skysift.pod" (dict "root" .root "group" $group) | nindent 4 }}
    containers:
      - name: ray-worker
        {{- include "skysift.container" .root | nindent 8 }}
        env: {{- include "skysift.env" (dict "root" .root "stores" (list "objects")) | nindent 10 }}
        ports:
          - {name: metrics, containerPort: 8080, protocol: TCP}
        {{- include "skysift.mounts" . | nindent 8 }}
        resources: {{- include "skysift.resources" .group | nindent 10 }}
{{- end }}

{{/* KubeRay's submitter, which gets its command from KubeRay and no secrets from us. */}}
{{- define "skysift.submitter" -}}
metadata:
  labels: {{- include "skysift.podLabels" (dict "root" . "component" "submitter") | nindent 4 }}
spec:
  {{- include "skysift.pod" (dict "root" . "group" .Values.submitter) | nindent 2 }}
  restartPolicy: Never
  containers:
    - name: ray-job-submitter
      {{- include "skysift.container" . | nindent 6 }}
      resources: {{- include "skysift.resources" .Values.submitter | nindent 8 }}
{{- end }}

{{/*
A whole RayJob. Argument: (dict "root" context "name" name, or empty: named by its content "prefix" of that name
"profile" name "entrypoint" command "labels" dict).
*/}}
{{- define "skysift.rayJob" -}}
{{- $spec := include "skysift.jobSpec" . -}}
{{- $name := .name -}}
{{- if not $name }}
{{- $name = printf "%s-%s" (.prefix | trunc 38 | trimSuffix "-") (sha256sum $spec | trunc 8) }}
{{- end -}}
apiVersion: ray.io/v1
kind: RayJob
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "skysift.labels" .root | nindent 4 }}
    {{- with .labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with include "skysift.queueLabels" .root | trim }}
    {{- . | nindent 4 }}
    {{- end }}
  {{- if and .root.Values.kueue.queue .root.Values.kueue.elastic }}
  annotations:
    kueue.x-k8s.io/elastic-job: "true"
  {{- end }}
spec: {{- $spec | nindent 2 }}
{{- end }}
