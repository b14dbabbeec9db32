{{- define "flowtap.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "flowtap.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "flowtap.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "flowtap.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "flowtap.selector" -}}
app.kubernetes.io/name: {{ include "flowtap.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "flowtap.labels" -}}
{{ include "flowtap.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "flowtap.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "flowtap.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "flowtap.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "flowtap.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "flowtap.containerSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Annotations of pods; their owner's go before. */}}
{{- define "flowtap.podAnnotations" -}}
{{- $scrape := dict -}}
{{- if .root.Values.monitoring.annotations -}}
{{- $scrape = dict "prometheus.io/scrape" "true" "prometheus.io/port" "9464" "prometheus.io/path" "/metrics" -}}
{{- end -}}
{{- with merge (dict) .own $scrape -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{/* Labels of pods; those that selectors go by are the chart's own (see values.schema.json). */}}
{{- define "flowtap.podLabels" -}}
{{- toYaml (merge (dict) .own (include "flowtap.labels" .of | fromYaml)) -}}
{{- end -}}

{{/* Fails where a scaler's bounds cannot hold; `of` is its path. */}}
{{- define "flowtap.checkScaler" -}}
{{- if and .scaler.enabled (gt (int .scaler.minReplicas) (int .scaler.maxReplicas)) -}}
{{- fail (printf "%s.minReplicas is %d and more than maxReplicas, %d" .of (int .scaler.minReplicas) (int .scaler.maxReplicas)) -}}
{{- end -}}
{{- end -}}

{{- define "flowtap.hubConfig" -}}
{{- $admin := dict "listen" "0.0.0.0:9464" "hosts" (concat (list (include "flowtap.fullname" .) (printf "%s.%s" (include "flowtap.fullname" .) .Release.Namespace) (printf "%s.%s.svc" (include "flowtap.fullname" .) .Release.Namespace)) .Values.hub.admin.hosts) -}}
{{- if .Values.hub.admin.tokenSecret.name -}}
{{- $_ := set $admin "token_file" (printf "/run/secrets/%s/%s" .Values.hub.admin.tokenSecret.name .Values.hub.admin.tokenSecret.key) -}}
{{- else if not .Values.hub.admin.anonymous -}}
{{- fail "hub.admin.tokenSecret.name names no Secret: samples would be open to all who reach the hub (hub.admin.anonymous: true allows that)" -}}
{{- end -}}
{{- $config := dict "data_dir" "/var/lib/flowtap" "admin" $admin -}}
{{- if .Values.bucket -}}
{{- $_ := set $config "bucket" .Values.bucket -}}
{{- else if not .Values.hub.config.bucket -}}
{{- fail "bucket is empty: the hub has nothing to read" -}}
{{- end -}}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.hub.config)) -}}
{{- end -}}

{{/* Seconds between the decision that a gateway's pod goes and its SIGTERM: Services send to it until they
     have heard of it. Kubernetes waits by itself from 1.30 on; a short grace period has no time for that. */}}
{{- define "flowtap.pause" -}}
{{- if and (semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version) (ge (int .Values.gateway.terminationGracePeriodSeconds) 20) -}}
5
{{- else -}}
0
{{- end -}}
{{- end -}}

{{- define "flowtap.gatewayConfig" -}}
{{- if not .Values.gateway.config.taps -}}
{{- fail "gateway.config.taps is empty: the gateway has nothing to stand before" -}}
{{- end -}}
{{- $config := dict "data_dir" "/var/lib/flowtap" "admin" (dict "listen" "0.0.0.0:9464") -}}
{{- $_ := set $config "drain_timeout" (printf "%ds" (max 0 (sub (int .Values.gateway.terminationGracePeriodSeconds) (add 5 (int (include "flowtap.pause" .)))))) -}}
{{- $listens := list -}}
{{- range .Values.gateway.config.taps -}}
{{- $listen := toString (default "127.0.0.1:8080" .listen) -}}
{{- if regexMatch "^(127\\.|localhost:|\\[::1\\]:)" $listen -}}
{{- fail (printf "gateway.config.taps: %s is reached by the pod alone: let the tap listen at 0.0.0.0" $listen) -}}
{{- end -}}
{{- $listens = append $listens (regexFind "[0-9]+$" $listen) -}}
{{- end -}}
{{- range .Values.gateway.ports -}}
{{- if not (has (toString (int .targetPort)) $listens) -}}
{{- fail (printf "gateway.ports: no tap of gateway.config listens at %d (%s), they do at %s" (int .targetPort) .name (join ", " $listens)) -}}
{{- end -}}
{{- end -}}
{{- if .Values.nats -}}
{{- $_ := set $config "queue" (dict "nats" .Values.nats) -}}
{{- end -}}
{{- if .Values.bucket -}}
{{- $_ := set $config "bucket" .Values.bucket -}}
{{- else if not .Values.gateway.config.bucket -}}
{{- fail "bucket is empty: what the gateway samples would end with its pods" -}}
{{- end -}}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.gateway.config)) -}}
{{- end -}}

{{- define "flowtap.evaluatorsConfig" -}}
{{- if not (or .Values.evaluators.config.judge .Values.evaluators.config.evaluate) -}}
{{- fail "evaluators.config has neither judge nor evaluate: the evaluators have nothing to do" -}}
{{- end -}}
{{- $config := dict "admin" (dict "listen" "0.0.0.0:9464") -}}
{{- if .Values.nats -}}
{{- $_ := set $config "queue" (dict "nats" .Values.nats) -}}
{{- else if .Values.evaluators.keda.enabled -}}
{{- fail "nats is empty: KEDA scales by the samples that wait there" -}}
{{- end -}}
{{- if .Values.bucket -}}
{{- $_ := set $config "bucket" .Values.bucket -}}
{{- else if not .Values.evaluators.config.bucket -}}
{{- fail "bucket is empty: the evaluators have nothing to judge" -}}
{{- end -}}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.evaluators.config)) -}}
{{- end -}}

{{/* A volume's name has neither dots nor more than 63 characters, and a Secret's may. */}}
{{- define "flowtap.secretVolume" -}}
{{- if or (contains "." .) (gt (len .) 56) -}}
{{- printf "secret-%s-%s" (replace "." "-" . | trunc 40 | trimSuffix "-") (sha256sum . | trunc 8) -}}
{{- else -}}
{{- printf "secret-%s" . -}}
{{- end -}}
{{- end -}}

{{/* Secrets of the hub or the gateway, each below /run/secrets/NAME. */}}
{{- define "flowtap.secretMounts" -}}
{{- range . }}
- {name: {{ include "flowtap.secretVolume" . }}, mountPath: {{ printf "/run/secrets/%s" . | quote }}, readOnly: true}
{{- end }}
{{- end -}}

{{- define "flowtap.secretVolumes" -}}
{{- range . }}
- name: {{ include "flowtap.secretVolume" . }}
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- end -}}
