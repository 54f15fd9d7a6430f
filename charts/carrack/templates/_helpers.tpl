{{/* Labels of everything that the chart makes. */}}
{{- define "carrack.labels" -}}
app.kubernetes.io/name: carrack
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* Labels by which the controller's pods are found. They are the same for ever: a Deployment cannot change them. */}}
{{- define "carrack.controller" -}}
app.kubernetes.io/name: carrack
app.kubernetes.io/component: controller
{{- end -}}

{{/* Addresses of a network policy: those that are given, or any. */}}
{{- define "carrack.addresses" -}}
{{- with .cidrs }}
to:
  {{- range . }}
  - ipBlock:
      cidr: {{ . }}
  {{- end }}
{{- end }}
ports:
  {{- range .ports }}
  - protocol: TCP
    port: {{ . }}
  {{- end }}
{{- end -}}
