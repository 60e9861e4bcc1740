{{- define "popularity-reports.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* The name of an object that belongs to no namespace: two releases of a cluster must not meet in it. */}}
{{- define "popularity-reports.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "popularity-reports.fullname" .) }}
{{- end }}

{{- /* Labels of an object of a component: dict "root" $ "component" "api". */}}
{{- define "popularity-reports.labels" -}}
{{ include "popularity-reports.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: popularity-reports
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "popularity-reports.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- /* The reference of an image: dict "root" $ "image" "api". */}}
{{- define "popularity-reports.image" -}}
{{- $images := .root.Values.images }}
{{- $image := index $images .image }}
{{- $repository := $image.repository }}
{{- with $images.registry }}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository }}
{{- end }}
{{- if $image.digest }}
{{- printf "%s@%s" $repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $repository ($image.tag | default $images.tag | default .root.Chart.AppVersion) }}
{{- end }}
{{- end }}
