{{/* The ConfigMap is named by its content, so that another config makes another RayJob. */}}
{{- define "skysift.configMap" -}}
{{ include "skysift.name" . }}-{{ include "skysift.config" . | sha256sum | trunc 8 }}
{{- end }}

{{/* The RayJob's spec. */}}
{{- define "skysift.jobSpec" -}}
entrypoint: skysift run --config /etc/skysift/skysift.toml
submissionMode: K8sJobMode
shutdownAfterJobFinishes: true
ttlSecondsAfterFinished: {{ .Values.job.ttlSecondsAfterFinished | int64 }}
backoffLimit: {{ .Values.job.backoffLimit | int64 }}
{{- with .Values.job.activeDeadlineSeconds }}
activeDeadlineSeconds: {{ . | int64 }}
{{- end }}
submitterPodTemplate: {{- include "skysift.submitter" . | nindent 2 }}
rayClusterSpec:
  rayVersion: {{ .Values.ray.version | quote }}
  authOptions:
    mode: token
    {{- with .Values.ray.tokenSecret }}
    secretName: {{ . }}
    {{- end }}
  headGroupSpec:
    rayStartParams:
      num-cpus: "0"
      dashboard-host: 0.0.0.0
    {{- $keep := dict "cluster-autoscaler.kubernetes.io/safe-to-evict" "false" }}
    template:
      {{- include "skysift.rayPod" (dict "root" . "group" .Values.head "name" "ray-head" "annotations" $keep) | nindent 6 }}
  workerGroupSpecs:
    {{- with .Values.workers.cpu }}
    {{- if .replicas }}
    - groupName: cpu
      {{- include "skysift.workers" (dict "root" $ "group" .) | nindent 6 }}
    {{- end }}
    {{- end }}
    {{- with .Values.workers.gpu }}
    {{- if and .enabled .replicas }}
    - groupName: gpu
      {{- include "skysift.workers" (dict "root" $ "group" .) | nindent 6 }}
    {{- end }}
    {{- end }}
{{- end }}

{{/* A worker group of fixed size. Argument: (dict "root" context "group" values). */}}
{{- define "skysift.workers" -}}
{{- $replicas := .group.replicas | int64 -}}
replicas: {{ $replicas }}
minReplicas: {{ $replicas }}
maxReplicas: {{ $replicas }}
{{- with .group.gpus }}
rayStartParams:
  num-gpus: {{ . | toString | quote }}
{{- else }}
rayStartParams: {}
{{- end }}
template:
  {{- include "skysift.rayPod" (dict "root" .root "group" .group "name" "ray-worker" "annotations" dict) | nindent 2 }}
{{- end }}

{{/* KubeRay's submitter, which gets its command from KubeRay; the tables are migrated before it. */}}
{{- define "skysift.submitter" -}}
metadata:
  labels: {{- include "skysift.podLabels" . | nindent 4 }}
    app.kubernetes.io/component: submitter
spec:
  {{- include "skysift.pod" . | nindent 2 }}
  restartPolicy: Never
  {{- if .Values.migrate }}
  initContainers:
    - name: migrate
      {{- include "skysift.container" . | nindent 6 }}
      {{- include "skysift.work" . | nindent 6 }}
      command: [skysift, db, migrate, --config, /etc/skysift/skysift.toml]
      resources: {{- include "skysift.resources" .Values.submitter | nindent 8 }}
  {{- end }}
  containers:
    - name: ray-job-submitter
      {{- include "skysift.container" . | nindent 6 }}
      resources: {{- include "skysift.resources" .Values.submitter | nindent 8 }}
{{- end }}
