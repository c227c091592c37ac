{{/*
A map as TOML: its scalars and lists first, then its maps as sections. Argument: (dict "tree" map "path" list).
Every JSON scalar, and every JSON list of them, is TOML too; Helm's own toToml turns the integer 512 into 512.0.
*/}}
{{- define "skysift.toml" -}}
{{- $path := .path -}}
{{- range $key, $value := .tree }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ $key }} = {{ $value | toRawJson }}
{{- end }}
{{- end }}
{{- range $key, $value := .tree }}
{{- if kindIs "map" $value }}
{{- $inner := append $path $key }}

[{{ join "." $inner }}]
{{- include "skysift.toml" (dict "tree" $value "path" $inner) }}
{{- end }}
{{- end }}
{{- end }}

{{/* skysift.toml, the same for all jobs; each job adds its run's name. */}}
{{- define "skysift.config" -}}
{{- $given := omit .Values.config.stores "postgres" "milvus" -}}
{{- $made := dict "workspace" "/workspace" "postgres" (include "skysift.postgresUrl" .) "milvus" (include "skysift.milvusUrl" .) -}}
{{- $tree := merge (dict "run" (include "skysift.run" (dict "root" . "job" dict)) "stores" (merge $made $given)) .Values.config -}}
{{- include "skysift.toml" (dict "tree" $tree "path" list) | trim }}
{{ end }}

{{/* The ConfigMap is named by its content: pods that start again after an upgrade find the one they began with. */}}
{{- define "skysift.configMap" -}}
{{ include "skysift.name" . }}-config-{{ include "skysift.config" . | sha256sum | trunc 8 }}
{{- end }}
