{{/* What the schema cannot say: each message names the value, and what to do. */}}
{{- define "skysift.checks" -}}
{{- $stores := .Values.config.stores -}}
{{- if not .Values.config.survey.root -}}
{{- fail "config.survey.root is empty: set the folder or URL of the survey, such as s3://desidata/dr1/spectro/redux/iron" -}}
{{- end -}}
{{- if not $stores.postgres -}}
{{- fail "config.stores.postgres is empty: pods cannot share an embedded PostgreSQL; set postgresql://user@host:5432/database" -}}
{{- end -}}
{{- if regexMatch "://[^/@]*:[^/@]*@" $stores.postgres -}}
{{- fail "config.stores.postgres holds a password: take it out, and give PGPASSWORD from a Secret under secretEnv" -}}
{{- end -}}
{{- if not $stores.milvus -}}
{{- fail "config.stores.milvus is empty: pods cannot share an embedded Milvus; set http://host:19530" -}}
{{- end -}}
{{- if not (or (contains "://" (default "" $stores.objects)) .Values.workspace.existingClaim) -}}
{{- fail "config.stores.objects is not a URL: pods share no folder; set s3://bucket/prefix, or workspace.existingClaim to a ReadWriteMany claim" -}}
{{- end -}}
{{- $given := dict -}}
{{- range $name, $_ := .Values.env }}{{ $_ := set $given $name "env" }}{{ end -}}
{{- range .Values.secretEnv -}}
{{- if hasKey $given .name -}}
{{- fail (printf "secretEnv gives %s, which %s gives already: keep one of them" .name (get $given .name)) -}}
{{- end -}}
{{- $_ := set $given .name "secretEnv" -}}
{{- end -}}
{{- if not (or .Values.workers.cpu.replicas (and .Values.workers.gpu.enabled .Values.workers.gpu.replicas)) -}}
{{- fail "workers.cpu.replicas is 0 and workers.gpu is off: a run needs a worker; set workers.cpu.replicas to 1 or more" -}}
{{- end -}}
{{- end }}
