{{/* Variables of every program that serves. Takes (dict "root" $ "component" NAME "port" N "metrics" N "calls" BOOL):
without `calls` it serves its own Pod alone, and only its health is asked for from outside. */}}
{{- define "tutelage.serverVariables" -}}
TUTELAGE_SERVER_ADDRESS: {{ printf "%s:%d" (.calls | ternary "0.0.0.0" "127.0.0.1") (int .port) | quote }}
TUTELAGE_SERVER_PROBE_ADDRESS: {{ printf "0.0.0.0:%d" (add .port 1) | quote }}
TUTELAGE_METRICS_ADDRESS: {{ printf "0.0.0.0:%d" (int .metrics) | quote }}
TUTELAGE_LOG_LEVEL: {{ .root.Values.logLevel | quote }}
{{- if and .calls .root.Values.tls.enabled }}
TUTELAGE_SERVER_TLS_CERTIFICATE_FILE: /etc/tutelage/tls/tls.crt
TUTELAGE_SERVER_TLS_KEY_FILE: /etc/tutelage/tls/tls.key
TUTELAGE_SERVER_TLS_CLIENT_CA_FILE: /etc/tutelage/tls/ca.crt
{{- end }}
{{- with .root.Values.traces }}
{{- if .enabled }}
TUTELAGE_TRACES_ENABLED: "true"
TUTELAGE_TRACES_ADDRESS: {{ .address | quote }}
TUTELAGE_TRACES_TLS: {{ .tls | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Variables that lead to a service. Takes (dict "root" $ "prefix" VARIABLE-PREFIX "address" HOST:PORT). */}}
{{- define "tutelage.clientVariables" -}}
{{ .prefix }}_ADDRESS: {{ .address | quote }}
{{- if .root.Values.tls.enabled }}
{{ .prefix }}_TLS_ENABLED: "true"
{{ .prefix }}_TLS_CA_FILE: /etc/tutelage/tls/ca.crt
{{ .prefix }}_TLS_CERTIFICATE_FILE: /etc/tutelage/tls/tls.crt
{{ .prefix }}_TLS_KEY_FILE: /etc/tutelage/tls/tls.key
{{- end }}
{{- end -}}

{{/* Variables that lead to Redis and S3. Takes (dict "root" $ "authority" PATH), the file of the release's authority. */}}
{{- define "tutelage.storeVariables" -}}
{{- $values := .root.Values -}}
{{- $fullname := include "tutelage.fullname" .root -}}
{{- $redis := printf "/etc/tutelage/secrets/%s" (include "tutelage.redisSecret" .root) -}}
{{- $minio := printf "/etc/tutelage/secrets/%s" (include "tutelage.minioSecret" .root) -}}
TUTELAGE_STORES_REDIS_PASSWORD_FILE: {{ $redis }}/password
{{- if $values.redis.builtIn }}
TUTELAGE_STORES_REDIS_ADDRESS: {{ $fullname }}-redis:6379
TUTELAGE_STORES_REDIS_TLS: {{ $values.tls.enabled | quote }}
{{- if $values.tls.enabled }}
TUTELAGE_STORES_REDIS_CA_FILE: {{ .authority }}
{{- end }}
{{- else }}
TUTELAGE_STORES_REDIS_ADDRESS: {{ $values.redis.external.address | quote }}
TUTELAGE_STORES_REDIS_TLS: {{ $values.redis.external.tls | quote }}
TUTELAGE_STORES_REDIS_USER: {{ $values.redis.external.user | quote }}
{{- if $values.redis.external.hasAuthority }}
TUTELAGE_STORES_REDIS_CA_FILE: {{ $redis }}/ca.crt
{{- end }}
{{- end }}
TUTELAGE_STORES_OBJECTS_BUCKET: {{ $values.minio.bucket | quote }}
TUTELAGE_STORES_OBJECTS_ACCESS_KEY_FILE: {{ $minio }}/access-key
TUTELAGE_STORES_OBJECTS_SECRET_KEY_FILE: {{ $minio }}/secret-key
{{- if $values.minio.builtIn }}
TUTELAGE_STORES_OBJECTS_ADDRESS: {{ $fullname }}-minio:9000
TUTELAGE_STORES_OBJECTS_TLS: {{ $values.tls.enabled | quote }}
{{- if $values.tls.enabled }}
TUTELAGE_STORES_OBJECTS_CA_FILE: {{ .authority }}
{{- end }}
{{- else }}
TUTELAGE_STORES_OBJECTS_ADDRESS: {{ $values.minio.external.address | quote }}
TUTELAGE_STORES_OBJECTS_TLS: {{ $values.minio.external.tls | quote }}
{{- if $values.minio.external.hasAuthority }}
TUTELAGE_STORES_OBJECTS_CA_FILE: {{ $minio }}/ca.crt
{{- end }}
{{- end }}
{{- end -}}

{{/* Variables of the backend of the teacher. */}}
{{- define "tutelage.teacherVariables" -}}
{{- $keys := printf "/etc/tutelage/secrets/%s" (include "tutelage.keysSecret" .) -}}
TUTELAGE_TEACHER_GALLERY_KEY_FILE: {{ $keys }}/gallery.key
{{- if eq .Values.teacher.backend "torchserve" }}
TUTELAGE_TEACHER_BACKEND_KIND: torchserve
TUTELAGE_TEACHER_BACKEND_ADDRESS: 127.0.0.1:7070
{{- else if eq .Values.teacher.backend "oip" }}
{{- with .Values.teacher.oip }}
TUTELAGE_TEACHER_BACKEND_KIND: open-inference
TUTELAGE_TEACHER_BACKEND_ADDRESS: {{ required "teacher.oip.address says where the server of the teacher is" .address | quote }}
TUTELAGE_TEACHER_BACKEND_MODEL: {{ .model | quote }}
TUTELAGE_TEACHER_BACKEND_MODEL_VERSION: {{ .modelVersion | quote }}
TUTELAGE_TEACHER_BACKEND_SPACE: {{ .space | quote }}
TUTELAGE_TEACHER_BACKEND_TLS_ENABLED: {{ .tls | quote }}
{{- with .tokenSecret }}
TUTELAGE_TEACHER_BACKEND_TOKEN_FILE: /etc/tutelage/secrets/{{ . }}/token
{{- end }}
{{- end }}
{{- else }}
TUTELAGE_TEACHER_BACKEND_KIND: in-process
TUTELAGE_TEACHER_BACKEND_TEACHER: {{ .Values.teacher.name | quote }}
{{- end }}
TUTELAGE_TEACHER_BACKEND_START_TIMEOUT: "300"
{{- with .Values.teacher.abstention }}
{{- if not (kindIs "invalid" .minCosine) }}
TUTELAGE_TEACHER_ABSTENTION_MIN_COSINE: {{ .minCosine | quote }}
{{- end }}
{{- if not (kindIs "invalid" .minMargin) }}
TUTELAGE_TEACHER_ABSTENTION_MIN_MARGIN: {{ .minMargin | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Secrets of the teacher's Pods, as YAML. */}}
{{- define "tutelage.teacherSecrets" -}}
{{- $own := dict (include "tutelage.keysSecret" .) (list "gallery.key") -}}
{{- $token := dict -}}
{{- if and (eq .Values.teacher.backend "oip") .Values.teacher.oip.tokenSecret -}}
{{- $token = dict .Values.teacher.oip.tokenSecret (list "token") -}}
{{- end -}}
{{ include "tutelage.joinedSecrets" (list $own $token (include "tutelage.storeSecrets" . | fromYaml)) }}
{{- end -}}

{{/* Variables of the distiller, wherever it runs. Takes (dict "root" $ "authority" PATH). */}}
{{- define "tutelage.distillerVariables" -}}
{{- $keys := printf "/etc/tutelage/secrets/%s" (include "tutelage.keysSecret" .root) -}}
{{- $teacher := printf "%s-teacher-inference:50051" (include "tutelage.fullname" .root) -}}
{{ include "tutelage.clientVariables" (dict "root" .root "prefix" "TUTELAGE_DISTILLER_TEACHER" "address" $teacher) }}
TUTELAGE_DISTILLER_SIGNER_FILE: {{ $keys }}/signer.pem
TUTELAGE_DISTILLER_SEAL_KEY_FILE: {{ $keys }}/fleet.key
TUTELAGE_DISTILLER_DATA_KEY_FILE: {{ $keys }}/data.key
{{ include "tutelage.storeVariables" . }}
{{- end -}}

{{/* Secrets of the distiller's Pods, as YAML. */}}
{{- define "tutelage.distillerSecrets" -}}
{{- $own := dict (include "tutelage.keysSecret" .) (list "signer.pem" "fleet.key" "data.key") -}}
{{ include "tutelage.joinedSecrets" (list $own (include "tutelage.storeSecrets" . | fromYaml)) }}
{{- end -}}
