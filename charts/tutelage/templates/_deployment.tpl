{{/* The Deployment of one of our programs. Takes a dict:
root; component; image; config, the path of the template with its variables; secrets, as "tutelage.volumes" takes them;
calls, whether others call it; startSeconds; resources; replicas, or null where something else decides; teacher, whether
TorchServe stands beside it; account and token, its service account and whether it is given its token; scratchBytes, of
a folder for large temporary files, or 0; certificate, whether it has one. */}}
{{- define "tutelage.deployment" -}}
{{- $fullname := include "tutelage.fullname" .root -}}
{{- $use := dict "root" .root "component" (.certificate | ternary .component "") "secrets" .secrets -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $fullname }}-{{ .component }}
  labels: {{- include "tutelage.labels" . | nindent 4 }}
spec:
  {{- if not (kindIs "invalid" .replicas) }}
  replicas: {{ .replicas }}
  {{- end }}
  selector:
    matchLabels: {{- include "tutelage.selector" . | nindent 6 }}
  strategy:
    # A new Pod answers before an old one ends.
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  template:
    metadata:
      labels: {{- include "tutelage.podLabels" . | nindent 8 }}
      annotations: {{- include "tutelage.podAnnotations" . | nindent 8 }}
    spec:
      {{- include "tutelage.pod" . | nindent 6 }}
      {{- include "tutelage.spread" . | nindent 6 }}
      serviceAccountName: {{ .account }}
      automountServiceAccountToken: {{ .token }}
      terminationGracePeriodSeconds: 45
      {{- if and .teacher (eq .root.Values.teacher.backend "torchserve") }}
      initContainers:
        {{- include "tutelage.torchserve" .root | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .component }}
          image: {{ include "tutelage.image" . }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          {{- include "tutelage.container" (dict "writable" (.root.Values.development).enabled) | nindent 10 }}
          envFrom:
            - configMapRef: {name: {{ $fullname }}-{{ .component }}}
          ports:
            {{- if .calls }}
            - {name: grpc, containerPort: 50051}
            {{- end }}
            - {name: probes, containerPort: 50052}
            - {name: metrics, containerPort: 9464}
          {{- include "tutelage.probes" (dict "port" 50052 "startSeconds" .startSeconds) | nindent 10 }}
          resources: {{- toYaml .resources | nindent 12 }}
          volumeMounts:
            {{- include "tutelage.mounts" $use | nindent 12 }}
            {{- if .scratchBytes }}
            - {name: scratch, mountPath: /scratch}
            {{- end }}
      volumes:
        {{- include "tutelage.volumes" $use | nindent 8 }}
        {{- if .scratchBytes }}
        - name: scratch
          emptyDir: {sizeLimit: {{ int64 .scratchBytes | quote }}}
        {{- end }}
{{- end -}}

{{/* TorchServe beside a teacher: it listens on loopback alone, starts before the teacher and ends after it. */}}
{{- define "tutelage.torchserve" -}}
- name: torchserve
  image: {{ include "tutelage.image" (dict "root" . "image" "torchserve") }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  restartPolicy: Always
  {{- include "tutelage.container" . | nindent 2 }}
  startupProbe:
    # Nothing outside the Pod reaches it, the kubelet neither.
    exec: &ping
      command: [python, -c, "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/ping', timeout=4)"]
    periodSeconds: 3
    timeoutSeconds: 5
    failureThreshold: 100
  livenessProbe:
    exec: *ping
    periodSeconds: 30
    timeoutSeconds: 10
    failureThreshold: 4
  resources: {{- toYaml .Values.teacher.torchserve.resources | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp, subPath: torchserve}
{{- end -}}

{{/* The ConfigMap of a component. Takes (dict "root" $ "component" NAME "variables" TEXT "env" MAP). */}}
{{- define "tutelage.config" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "tutelage.fullname" .root }}-{{ .component }}
  labels: {{- include "tutelage.labels" . | nindent 4 }}
data:
  {{- .variables | nindent 2 }}
  {{- range $name, $value := .env }}
  {{ $name }}: {{ $value | quote }}
  {{- end }}
{{- end -}}

{{/* The Service of a component that others call. Takes (dict "root" $ "component" NAME). */}}
{{- define "tutelage.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "tutelage.fullname" .root }}-{{ .component }}
  labels: {{- include "tutelage.labels" . | nindent 4 }}
spec:
  selector: {{- include "tutelage.selector" . | nindent 4 }}
  ports:
    - {name: grpc, port: 50051, targetPort: grpc}
{{- end -}}
