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

{{/* The run's skysift.toml. */}}
{{- define "skysift.config" -}}
{{- $stores := merge (dict "workspace" "/workspace") .Values.config.stores -}}
{{- $tree := merge (dict "run" (include "skysift.run" .) "stores" $stores) .Values.config -}}
{{- include "skysift.toml" (dict "tree" $tree "path" list) | trim }}
{{ end }}
