{{- define "headrace.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "headrace.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "headrace.labels" -}}
{{ include "headrace.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "headrace.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "headrace.name" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "headrace.image" -}}
{{- $image := .Values.image }}
{{- $image.repository }}{{ if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- /* The names of the service in the cluster, what `kubectl port-forward` and who asks a pod by its address say, and people's. */ -}}
{{- define "headrace.hosts" -}}
{{- $name := include "headrace.name" . }}
{{- $hosts := list "localhost" "localhost:*" "127.0.0.1" "127.0.0.1:*" "10.*" "192.168.*" }}
{{- range untilStep 16 32 1 }}{{ $hosts = append $hosts (printf "172.%d.*" .) }}{{ end }}
{{- $full := printf "%s.%s" $name .Release.Namespace }}
{{- range list $name $full (printf "%s.svc" $full) (printf "%s.svc.cluster.local" $full) }}
{{- $hosts = concat $hosts (list . (printf "%s:*" .)) }}
{{- end }}
{{- with .Values.allowedHosts }}{{ $hosts = append $hosts . }}{{ end }}
{{- if .Values.ingress.enabled }}{{ $hosts = append $hosts .Values.ingress.host }}{{ end }}
{{- join "," $hosts }}
{{- end }}

{{- /* What the server's pods and gc's have in common. Secrets come by reference. */ -}}
{{- define "headrace.environment" -}}
- {name: MLFLOW_BACKEND_STORE_URI, value: "postgresql://"} # completed by the PG... variables, as libpq does
- {name: PGHOST, value: {{ .Values.database.host | quote }}}
- {name: PGPORT, value: {{ .Values.database.port | quote }}}
- {name: PGDATABASE, value: {{ .Values.database.name | quote }}}
- {name: PGUSER, value: {{ .Values.database.user | quote }}}
- name: PGPASSWORD
  valueFrom: {secretKeyRef: {name: {{ .Values.database.passwordSecret.name | quote }}, key: {{ .Values.database.passwordSecret.key | quote }}}}
- {name: PGSSLMODE, value: {{ .Values.database.sslmode | quote }}}
{{- if .Values.database.caConfigMap.name }}
- {name: PGSSLROOTCERT, value: {{ printf "/etc/headrace/database-ca/%s" .Values.database.caConfigMap.key | quote }}}
{{- else if eq .Values.database.sslmode "verify-full" }}
- {name: PGSSLROOTCERT, value: system}
{{- end }}
- {name: MLFLOW_ARTIFACTS_DESTINATION, value: {{ .Values.artifacts.destination | quote }}}
{{- with .Values.artifacts.region }}
- {name: AWS_DEFAULT_REGION, value: {{ . | quote }}}
{{- end }}
{{- with .Values.artifacts.endpoint }}
- {name: MLFLOW_S3_ENDPOINT_URL, value: {{ . | quote }}}
{{- if not (hasKey $.Values.settings "HEADRACE_ARTIFACT_TRANSFER") }}
- {name: HEADRACE_ARTIFACT_TRANSFER, value: always-proxy}
{{- end }}
{{- end }}
{{- with .Values.artifacts.credentialsSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: AWS_ACCESS_KEY_ID}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: AWS_SECRET_ACCESS_KEY}}
{{- end }}
{{- range $name, $value := .Values.settings }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "headrace.pod" -}}
serviceAccountName: {{ include "headrace.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
volumes:
  - {name: tmp, emptyDir: {}}
  {{- with .Values.database.caConfigMap.name }}
  - {name: database-ca, configMap: {name: {{ . | quote }}}}
  {{- end }}
{{- end }}

{{- define "headrace.container" -}}
image: {{ include "headrace.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  {{- if .Values.database.caConfigMap.name }}
  - {name: database-ca, mountPath: /etc/headrace/database-ca, readOnly: true}
  {{- end }}
{{- end }}
