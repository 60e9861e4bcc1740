{{- /* What the operator is told about the Jobs that it makes. */}}
{{- define "popularity-reports.exporterEnv" -}}
- name: EXPORTER_IMAGE
  value: {{ include "popularity-reports.image" (dict "root" $ "image" "exporter") | quote }}
- name: EXPORTER_IMAGE_PULL_POLICY
  value: {{ .Values.images.pullPolicy | kebabcase }}
- name: EXPORTER_SERVICE_ACCOUNT
  value: {{ include "popularity-reports.fullname" . }}-exporter
{{- with .Values.secrets.exporter.name }}
- name: EXPORTER_ENV_SECRET
  value: {{ . }}
{{- end }}
{{- with include "popularity-reports.exporterVariables" . | fromYamlArray }}
- name: EXPORTER_ENV
  value: {{ join "," . | quote }}
{{- end }}
- name: EXPORTER_POD_LABEL
  value: {{ include "popularity-reports.exporterPodLabels" . | fromYamlArray | join "," | quote }}
{{- with .Values.exporter }}
- name: EXPORTER_BACKOFF_LIMIT
  value: {{ .backoffLimit | int64 | quote }}
- name: EXPORTER_MEMORY
  value: {{ .resources.memory | quote }}
- name: EXPORTER_CPU
  value: {{ .resources.cpu | quote }}
{{- with .queueName }}
- name: EXPORTER_QUEUE_NAME
  value: {{ . | quote }}
{{- end }}
{{- with .priorityClassName }}
- name: EXPORTER_PRIORITY_CLASS
  value: {{ . | quote }}
{{- end }}
{{- with .nodeSelector }}
{{- $pairs := list }}
{{- range $key, $value := . }}
{{- $pairs = append $pairs (printf "%s=%s" $key $value) }}
{{- end }}
- name: EXPORTER_NODE_SELECTOR
  value: {{ join "," $pairs | quote }}
{{- end }}
{{- with .tolerations }}
- name: EXPORTER_TOLERATIONS
  value: {{ toJson . | quote }}
{{- end }}
{{- with .affinity }}
- name: EXPORTER_AFFINITY
  value: {{ toJson . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "popularity-reports.exporterVariables" -}}
{{- $pairs := list }}
{{- if .Values.workloadIdentity.enabled }}
{{- $pairs = append $pairs "DATABASE_LOGIN=workload-identity" }}
{{- $pairs = append $pairs (printf "REPORTS_DATABASE_URL=%s" (include "popularity-reports.databaseUrl" (dict "root" $ "program" "exporter"))) }}
{{- $pairs = append $pairs (printf "CATALOG_DATABASE_URL=%s" (include "popularity-reports.catalogueUrl" .)) }}
{{- $pairs = append $pairs (printf "BLOB_ENDPOINT=%s" .Values.blob.endpoint) }}
{{- end }}
{{- range .Values.exporter.extraEnv }}
{{- $pairs = append $pairs (printf "%s=%s" .name .value) }}
{{- end }}
{{- toYaml $pairs }}
{{- end }}

{{- /* The operator sets app.kubernetes.io/name and managed-by itself. */}}
{{- define "popularity-reports.exporterPodLabels" -}}
{{- $pairs := list (printf "app.kubernetes.io/instance=%s" .Release.Name) "app.kubernetes.io/component=exporter" }}
{{- if .Values.workloadIdentity.enabled }}
{{- $pairs = append $pairs "azure.workload.identity/use=true" }}
{{- end }}
{{- range $key, $value := .Values.exporter.podLabels }}
{{- $pairs = append $pairs (printf "%s=%s" $key $value) }}
{{- end }}
{{- toYaml $pairs }}
{{- end }}

{{- /* What the exporter itself is told, for its doctor of `helm test`: the same as by the operator. */}}
{{- define "popularity-reports.exporterOwnEnv" -}}
{{- range include "popularity-reports.exporterVariables" . | fromYamlArray }}
{{- $pair := splitn "=" 2 . }}
- name: {{ $pair._0 }}
  value: {{ $pair._1 | quote }}
{{- end }}
- name: BLOB_CONTAINER
  value: {{ .Values.blob.container | quote }}
- name: LOG
  value: {{ .Values.operator.logLevel | quote }}
{{- end }}
