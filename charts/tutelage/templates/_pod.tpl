{{/* What holds for each Pod: who it runs as, where, and that it has no token. Takes (dict "root" $). */}}
{{- define "tutelage.pod" -}}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Pods of a component keep apart where they can. Takes (dict "root" $ "component" NAME). */}}
{{- define "tutelage.spread" -}}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "tutelage.selector" $ | nindent 8 }}
  {{- end }}
{{- end -}}

{{/* What holds for each container; with "writable", its root file system may be written. Takes a dict. */}}
{{- define "tutelage.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: {{ not .writable }}
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* Probes of a server of ours, in plain text and for health alone. Takes (dict "port" NUMBER "startSeconds" NUMBER). */}}
{{- define "tutelage.probes" -}}
startupProbe:
  grpc: {port: {{ .port }}, service: alive}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: {{ div .startSeconds 2 }}
livenessProbe:
  grpc: {port: {{ .port }}, service: alive}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  grpc: {port: {{ .port }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}

{{/* Annotations by which Pods are replaced when their variables change, or what is read only once.
Takes (dict "root" $ "config" PATH-OF-TEMPLATE). */}}
{{- define "tutelage.podAnnotations" -}}
tutelage/config: {{ include (print .root.Template.BasePath "/" .config) .root | sha256sum | trunc 16 | quote }}
{{- with .root.Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Volumes: /tmp, the component's certificate, and keys of Secrets at /etc/tutelage/secrets/NAME/KEY.
Takes (dict "root" $ "component" NAME-OR-EMPTY "secrets" (dict NAME (list KEY...))). */}}
{{- define "tutelage.volumes" -}}
- name: tmp
  emptyDir: {}
{{- if and .root.Values.tls.enabled .component }}
- name: tls
  secret:
    secretName: {{ include "tutelage.tlsSecret" . }}
    defaultMode: 0440
{{- end }}
{{- range $name, $keys := .secrets }}
- name: secret-{{ $name }}
  secret:
    secretName: {{ $name }}
    defaultMode: 0440
    items:
      {{- range $keys }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
{{- end }}
{{- end -}}

{{/* Where they are mounted. Takes the same. */}}
{{- define "tutelage.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if and .root.Values.tls.enabled .component }}
- {name: tls, mountPath: /etc/tutelage/tls, readOnly: true}
{{- end }}
{{- range $name, $keys := .secrets }}
- {name: secret-{{ $name }}, mountPath: /etc/tutelage/secrets/{{ $name }}, readOnly: true}
{{- end }}
{{- end -}}

{{/* Secrets of the stores, for "tutelage.volumes", as YAML. */}}
{{- define "tutelage.storeSecrets" -}}
{{- $redis := list "password" -}}
{{- $minio := list "access-key" "secret-key" -}}
{{- if and (not .Values.redis.builtIn) .Values.redis.external.hasAuthority }}{{ $redis = append $redis "ca.crt" }}{{ end -}}
{{- if and (not .Values.minio.builtIn) .Values.minio.external.hasAuthority }}{{ $minio = append $minio "ca.crt" }}{{ end -}}
{{ include "tutelage.joinedSecrets" (list (dict (include "tutelage.redisSecret" .) $redis) (dict (include "tutelage.minioSecret" .) $minio)) }}
{{- end -}}

{{/* One dict of secrets from a list of them, as YAML: several may have keys in the same Secret. */}}
{{- define "tutelage.joinedSecrets" -}}
{{- $joined := dict -}}
{{- range $secrets := . -}}
{{- range $name, $keys := $secrets -}}
{{- $_ := set $joined $name (concat (get $joined $name | default list) $keys | uniq) -}}
{{- end -}}
{{- end -}}
{{ toYaml $joined }}
{{- end -}}
