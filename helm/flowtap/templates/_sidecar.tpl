{{/*
A native sidecar for the pods of another chart: an entry of initContainers and one of volumes.

  initContainers:
    {{- include "flowtap.sidecar.container" (dict "flowtap" .Subcharts.flowtap "upstream" "http://127.0.0.1:8080" "env" (dict "FLOWTAP_BUCKET" "s3://samples/prod")) | nindent 8 }}
  volumes:
    {{- include "flowtap.sidecar.volume" (dict "flowtap" .Subcharts.flowtap) | nindent 8 }}

The Service's targetPort is `flowtap` then.
*/}}
{{- define "flowtap.sidecar.container" -}}
{{- $values := .flowtap.Values -}}
{{- $env := dict
      "FLOWTAP_ADMIN__LISTEN" (printf "0.0.0.0:%d" (int $values.sidecar.adminPort))
      "FLOWTAP_CAPTURE__MEMORY_BYTES_MAX" "32MiB"
      "FLOWTAP_DATA_DIR" "/var/lib/flowtap"
      "FLOWTAP_SPOOL__BYTES_MAX" "512MiB"
      "FLOWTAP_TAPS__0__HOST" "client"
      "FLOWTAP_TAPS__0__LISTEN" (printf "0.0.0.0:%d" (int $values.sidecar.port))
      "FLOWTAP_TAPS__0__UPSTREAM" (required "flowtap.sidecar.container needs an upstream" .upstream) -}}
{{- if $values.bucket -}}
{{- $_ := set $env "FLOWTAP_BUCKET" $values.bucket -}}
{{- end -}}
{{- if $values.nats -}}
{{- $_ := set $env "FLOWTAP_QUEUE__NATS" $values.nats -}}
{{- end -}}
{{- $env = mergeOverwrite $env (deepCopy $values.sidecar.env) (default dict .env) -}}
- name: flowtap
  image: {{ include "flowtap.image" .flowtap | quote }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  restartPolicy: Always
  args: [proxy]
  env:
    {{- range $name, $value := $env }}
    - name: {{ $name }}
      value: {{ $value | toString | quote }}
    {{- end }}
  {{- with .envFrom }}
  envFrom: {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - {name: flowtap, containerPort: {{ $values.sidecar.port }}}
    - {name: flowtap-admin, containerPort: {{ $values.sidecar.adminPort }}}
  startupProbe:
    httpGet: {path: /readyz, port: flowtap-admin}
    periodSeconds: 1
    failureThreshold: 30
  resources: {{- toYaml $values.sidecar.resources | nindent 4 }}
  securityContext: {{- include "flowtap.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: flowtap, mountPath: /var/lib/flowtap}
{{- end -}}

{{- define "flowtap.sidecar.volume" -}}
- name: flowtap
  emptyDir: {sizeLimit: {{ .flowtap.Values.sidecar.volumeSize }}}
{{- end -}}
