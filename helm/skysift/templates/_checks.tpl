{{/* What the schema cannot say: each message names the value, and what to do. */}}
{{- define "skysift.checks" -}}
{{- $stores := .Values.config.stores -}}
{{- if not .Values.config.survey.root -}}
{{- fail "config.survey.root is empty: set the folder or URL of the survey, such as s3://desidata/dr1/spectro/redux/iron" -}}
{{- end -}}
{{- if not (include "skysift.postgresUrl" .) -}}
{{- fail "config.stores.postgres is empty: pods cannot share an embedded PostgreSQL; set postgresql://user@host:5432/database, or postgres.create with CloudNativePG" -}}
{{- end -}}
{{- if regexMatch "://[^/@]*:[^/@]*@" $stores.postgres -}}
{{- fail "config.stores.postgres holds a password: take it out, and name a Secret with the key `password` in secrets.postgres" -}}
{{- end -}}
{{- if and $stores.postgres .Values.postgres.create -}}
{{- fail "config.stores.postgres and postgres.create are both set: empty one of them" -}}
{{- end -}}
{{- if not (include "skysift.milvusUrl" .) -}}
{{- fail "config.stores.milvus is empty: pods cannot share an embedded Milvus; set http://host:19530, or milvus.create with milvus-operator" -}}
{{- end -}}
{{- if and $stores.milvus .Values.milvus.create -}}
{{- fail "config.stores.milvus and milvus.create are both set: empty one of them" -}}
{{- end -}}
{{- if not (or (contains "://" (default "" $stores.objects)) .Values.workspace.existingClaim) -}}
{{- fail "config.stores.objects is not a URL: pods share no folder; set s3://bucket/prefix, or workspace.existingClaim to a ReadWriteMany claim" -}}
{{- end -}}
{{- $given := dict -}}
{{- if include "skysift.postgresSecret" . }}{{ $_ := set $given "PGPASSWORD" "secrets.postgres" }}{{ end -}}
{{- if .Values.secrets.milvus }}{{ $_ := set $given "MILVUS_TOKEN" "secrets.milvus" }}{{ end -}}
{{- if .Values.secrets.objects }}{{ $_ := set (set $given "AWS_ACCESS_KEY_ID" "secrets.objects") "AWS_SECRET_ACCESS_KEY" "secrets.objects" }}{{ end -}}
{{- range $name, $_ := .Values.env }}
{{- if hasKey $given $name -}}
{{- fail (printf "env gives %s, which %s gives already: keep one of them" $name (get $given $name)) -}}
{{- end -}}
{{- $_ := set $given $name "env" }}{{ end -}}
{{- range .Values.secretEnv -}}
{{- if hasKey $given .name -}}
{{- fail (printf "secretEnv gives %s, which %s gives already: keep one of them" .name (get $given .name)) -}}
{{- end -}}
{{- $_ := set $given .name "secretEnv" -}}
{{- end -}}
{{- if and .Values.kueue.elastic (not .Values.kueue.queue) -}}
{{- fail "kueue.elastic is true and kueue.queue is empty: name the LocalQueue, or set kueue.elastic to false" -}}
{{- end -}}
{{- range $name, $profile := .Values.profiles -}}
{{- if not $profile.workers -}}
{{- fail (printf "profiles.%s.workers is empty: a run needs a worker group" $name) -}}
{{- end -}}
{{- $cpus := 0 -}}
{{- range $group, $worker := $profile.workers -}}
{{- if gt (int64 $worker.min) (int64 $worker.max) -}}
{{- fail (printf "profiles.%s.workers.%s.min is more than its max: set min to %d or less" $name $group (int64 $worker.max)) -}}
{{- end -}}
{{- $cpus = add $cpus (mul $worker.max $worker.resources.cpu) -}}
{{- end -}}
{{- if lt $cpus 2 -}}
{{- fail (printf "profiles.%s has one CPU in all: a reader and a scorer need one each; give its workers 2 or more" $name) -}}
{{- end -}}
{{- end -}}
{{- $drivers := dict -}}
{{- range $verb, $job := .Values.jobs -}}
{{- if $job.enabled -}}
{{- $run := include "skysift.run" (dict "root" $ "job" $job) -}}
{{- if hasKey $drivers $run -}}
{{- fail (printf "jobs.%s and jobs.%s are both for run %s, which has one driver at a time: enable one of them, or give each its own run" (get $drivers $run) $verb $run) -}}
{{- end -}}
{{- $_ := set $drivers $run $verb -}}
{{- $_ := include "skysift.profile" (dict "root" $ "profile" ($job.profile | default $.Values.profile)) -}}
{{- end -}}
{{- end -}}
{{- $_ := include "skysift.profile" (dict "root" $ "profile" .Values.profile) -}}
{{- if and .Values.service.enabled (not .Values.service.tokens) -}}
{{- fail "service.tokens is empty: others than you can reach the service; name a Secret whose key tokens.json comes from `skysift serve --tokens tokens.json --new-token NAME`" -}}
{{- end -}}
{{- if and .Values.service.ingress.enabled (not .Values.service.ingress.host) -}}
{{- fail "service.ingress.host is empty: set the host name under which the service is reached" -}}
{{- end -}}
{{- if gt (int64 .Values.service.autoscaling.min) (int64 .Values.service.autoscaling.max) -}}
{{- fail "service.autoscaling.min is more than service.autoscaling.max: lower it" -}}
{{- end -}}
{{- end }}
