{{/* Who shows certificates, and the names in them, as YAML: component -> names. A server bears the names of its Service,
and `localhost` for whoever forwards a port to it; a client is known by the first of its names. */}}
{{- define "tutelage.parties" -}}
{{- $fullname := include "tutelage.fullname" . -}}
{{- $parties := dict -}}
{{- $servers := list "teacher-inference" "student-distiller" "model-registry" -}}
{{- if .Values.redis.builtIn }}{{ $servers = append $servers "redis" }}{{ end -}}
{{- if .Values.minio.builtIn }}{{ $servers = append $servers "minio" }}{{ end -}}
{{- range $component := $servers -}}
{{- $name := printf "%s-%s" $fullname $component -}}
{{- $_ := set $parties $component (list $name (printf "%s.%s" $name $.Release.Namespace) (printf "%s.%s.svc" $name $.Release.Namespace) (printf "%s.%s.svc.cluster.local" $name $.Release.Namespace) "localhost") -}}
{{- end -}}
{{- $device := printf "%s-device" $fullname -}}
{{- $_ := set $parties "device-sim" (list $device (printf "*.%s" $device) (printf "*.%s.%s" $device .Release.Namespace) (printf "*.%s.%s.svc" $device .Release.Namespace) (printf "*.%s.%s.svc.cluster.local" $device .Release.Namespace) "localhost") -}}
{{- range list "label-worker" "distiller-worker" "operator" -}}
{{- $_ := set $parties . (list (printf "%s-%s" $fullname .)) -}}
{{- end -}}
{{ toYaml $parties }}
{{- end -}}
