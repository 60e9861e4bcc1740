{{- /* The API's environment; the doctor of `helm test` has the same. */}}
{{- define "popularity-reports.apiEnv" -}}
{{- include "popularity-reports.podEnv" . }}
- name: REPORTS_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- include "popularity-reports.databaseEnv" (dict "root" $ "program" "api") }}
{{ include "popularity-reports.blobEnv" . }}
{{- with .Values.blob.publicEndpoint }}
- name: BLOB_PUBLIC_ENDPOINT
  value: {{ . | quote }}
{{- end }}
- name: JWT_ISSUER
  value: {{ .Values.auth.issuer | quote }}
- name: JWT_AUDIENCE
  value: {{ .Values.auth.audience | quote }}
{{- with .Values.auth.jwksUrl }}
- name: JWT_JWKS_URL
  value: {{ . | quote }}
{{- end }}
- name: REPORT_RETENTION_SECONDS
  value: {{ .Values.api.reportRetentionSeconds | int64 | quote }}
- name: MAX_UNFINISHED_PER_USER
  value: {{ .Values.api.maxUnfinishedPerUser | int64 | quote }}
- name: DOWNLOAD_URL_SECONDS
  value: {{ .Values.api.downloadUrlSeconds | int64 | quote }}
- name: LOG
  value: {{ .Values.api.logLevel | quote }}
{{- with .Values.api.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
