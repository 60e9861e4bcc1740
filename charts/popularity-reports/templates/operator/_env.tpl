{{- /* The operator's environment; the doctor of `helm test` has the same. */}}
{{- define "popularity-reports.operatorEnv" -}}
{{- include "popularity-reports.podEnv" . }}
- name: REPORTS_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: LEASE_NAME
  value: {{ include "popularity-reports.fullname" . }}-operator
- name: MAX_IN_FLIGHT
  value: {{ .Values.operator.maxInFlight | int64 | quote }}
{{- include "popularity-reports.databaseEnv" (dict "root" $ "program" "operator") }}
{{ include "popularity-reports.serviceBusEnv" . }}
{{ include "popularity-reports.blobEnv" . }}
{{ include "popularity-reports.exporterEnv" . }}
- name: LOG
  value: {{ .Values.operator.logLevel | quote }}
{{- with .Values.operator.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
