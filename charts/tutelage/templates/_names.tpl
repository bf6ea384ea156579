{{/* What everything of the release is called: RELEASE, with the chart's name where that does not hold it. */}}
{{- define "tutelage.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that a component is found by; they never change. Takes (dict "root" $ "component" NAME). */}}
{{- define "tutelage.selector" -}}
app.kubernetes.io/name: tutelage
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* All labels of a component. Takes the same. */}}
{{- define "tutelage.labels" -}}
{{ include "tutelage.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: tutelage
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Labels of its Pods: none that changes with the chart, or every upgrade would restart the stores. Takes the same. */}}
{{- define "tutelage.podLabels" -}}
{{ include "tutelage.selector" . }}
app.kubernetes.io/part-of: tutelage
{{- end -}}

{{/* Image of ours. Takes (dict "root" $ "image" NAME). */}}
{{- define "tutelage.image" -}}
{{- with .root.Values.image -}}
{{- get (.overrides | default dict) $.image | default (printf "%s%s:%s" .prefix $.image (.tag | default $.root.Chart.AppVersion)) -}}
{{- end -}}
{{- end -}}

{{/* Names of Secrets. */}}
{{- define "tutelage.keysSecret" -}}
{{ .Values.keys.existingSecret | default (printf "%s-keys" (include "tutelage.fullname" .)) }}
{{- end -}}
{{- define "tutelage.redisSecret" -}}
{{ .Values.redis.builtIn | ternary (printf "%s-redis" (include "tutelage.fullname" .)) .Values.redis.external.existingSecret }}
{{- end -}}
{{- define "tutelage.minioSecret" -}}
{{ .Values.minio.builtIn | ternary (printf "%s-minio" (include "tutelage.fullname" .)) .Values.minio.external.existingSecret }}
{{- end -}}
{{/* The certificate of a component. Takes (dict "root" $ "component" NAME). */}}
{{- define "tutelage.tlsSecret" -}}
{{ include "tutelage.fullname" .root }}-{{ .component }}-tls
{{- end -}}
