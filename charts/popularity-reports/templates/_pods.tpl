{{- /* What is the same in every Pod of the chart; the exporter's Pods are made by the operator. */}}

{{- define "popularity-reports.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "popularity-reports.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "popularity-reports.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Labels that a Pod has besides those it is selected by. */}}
{{- define "popularity-reports.identityLabel" -}}
{{- if .Values.workloadIdentity.enabled }}
azure.workload.identity/use: "true"
{{- end }}
{{- end }}

{{- /* Annotations of a service account: dict "root" $ "program" "api". */}}
{{- define "popularity-reports.identityAnnotations" -}}
{{- with .root.Values.workloadIdentity }}
{{- if .enabled }}
azure.workload.identity/client-id: {{ (index . $.program).clientId | quote }}
azure.workload.identity/tenant-id: {{ .tenantId | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The Secret whose keys become variables: dict "root" $ "program" "api". */}}
{{- define "popularity-reports.envFrom" -}}
{{- with (index .root.Values.secrets .program).name }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end }}

{{- define "popularity-reports.podEnv" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: POD_UID
  valueFrom:
    fieldRef:
      fieldPath: metadata.uid
{{- end }}

{{- /* A URL without a password: dict "root" $ "program" "api". */}}
{{- define "popularity-reports.databaseUrl" -}}
{{- with .root.Values.database -}}
postgres://{{ index .users $.program | urlquery }}@{{ .host }}:{{ .port }}/{{ .name | urlquery }}?sslmode={{ .sslMode }}
{{- end }}
{{- end }}

{{- define "popularity-reports.catalogueUrl" -}}
{{- with .Values.database -}}
postgres://{{ .users.exporter | urlquery }}@{{ .catalogue.host | default .host }}:{{ .catalogue.port | default .port }}/{{ .catalogue.name | default .name | urlquery }}?sslmode={{ .sslMode }}
{{- end }}
{{- end }}

{{- /* How a program of the chart logs in to the database: dict "root" $ "program" "api". */}}
{{- define "popularity-reports.databaseEnv" -}}
{{- if .root.Values.workloadIdentity.enabled }}
- name: DATABASE_LOGIN
  value: workload-identity
- name: REPORTS_DATABASE_URL
  value: {{ include "popularity-reports.databaseUrl" . | quote }}
{{- end }}
{{- end }}

{{- define "popularity-reports.blobEnv" -}}
- name: BLOB_CONTAINER
  value: {{ .Values.blob.container | quote }}
{{- if .Values.workloadIdentity.enabled }}
- name: BLOB_ENDPOINT
  value: {{ .Values.blob.endpoint | quote }}
{{- end }}
{{- end }}

{{- define "popularity-reports.serviceBusEnv" -}}
- name: SERVICEBUS_QUEUE
  value: {{ .Values.serviceBus.queue | quote }}
{{- if .Values.workloadIdentity.enabled }}
- name: SERVICEBUS_NAMESPACE
  value: {{ .Values.serviceBus.namespace | quote }}
{{- end }}
{{- end }}

{{- /* The class of what runs all the time. */}}
{{- define "popularity-reports.priorityClassName" -}}
{{- with .Values.priorityClass }}
{{- if .create }}
{{- include "popularity-reports.clusterName" $ }}
{{- else }}
{{- .name }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Where a Pod of several runs: dict "root" $ "component" "api". */}}
{{- define "popularity-reports.scheduling" -}}
{{- $values := index .root.Values .component }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "popularity-reports.topologySpread" -}}
{{- $values := index .root.Values .component }}
topologySpreadConstraints:
{{- if $values.topologySpreadConstraints }}
  {{- toYaml $values.topologySpreadConstraints | nindent 2 }}
{{- else }}
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ $key }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "popularity-reports.selectorLabels" $ | nindent 8 }}
    # a rollout's new Pods are spread among themselves
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end }}

{{- /* Alive means that the process answers; ready, that it has what it needs. Both are asked over the port named here. */}}
{{- define "popularity-reports.probes" -}}
startupProbe:
  httpGet:
    path: /_health/live
    port: {{ . }}
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet:
    path: /_health/live
    port: {{ . }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet:
    path: /_health/ready
    port: {{ . }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end }}
