{{- /* The pod of a job beside the one that is committed. Takes a dictionary: root, arguments. */}}
{{- define "ocidiff.committer" -}}
{{- $commit := .root.Values.commit -}}
automountServiceAccountToken: false
restartPolicy: Never
nodeName: {{ required "commit.node: the node that the pod is on" $commit.node | quote }}
terminationGracePeriodSeconds: 60
tolerations:
  - operator: Exists
containers:
  - name: committer
    image: {{ .root.Values.image | quote }}
    imagePullPolicy: {{ .root.Values.imagePullPolicy }}
    args: {{- toYaml .arguments | nindent 6 }}
    env:
      - {name: CONTAINERD_ADDRESS, value: {{ .root.Values.containerd.socket | quote }}}
      - {name: CONTAINERD_NAMESPACE, value: k8s.io}
      {{- if $commit.pushSecret }}
      - {name: DOCKER_CONFIG, value: /run/secrets/registry}
      {{- end }}
    resources: {{- toYaml $commit.resources | nindent 6 }}
    securityContext:
      runAsUser: 0
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities:
        drop: [ALL]
        # Reads the upper directory of any owner, and overlayfs's marks in it (`trusted.*`); nothing is mounted.
        add: [DAC_READ_SEARCH, SYS_ADMIN]
    volumeMounts:
      - {name: socket, mountPath: {{ .root.Values.containerd.socket | quote }}}
      - {name: root, mountPath: {{ .root.Values.containerd.root | quote }}, readOnly: true, mountPropagation: HostToContainer}
      - {name: temporary, mountPath: /tmp}
      {{- if $commit.pushSecret }}
      - {name: registry, mountPath: /run/secrets/registry, readOnly: true}
      {{- end }}
volumes:
  - {name: socket, hostPath: {path: {{ .root.Values.containerd.socket | quote }}, type: Socket}}
  - {name: root, hostPath: {path: {{ .root.Values.containerd.root | quote }}, type: Directory}}
  - {name: temporary, emptyDir: {}}
  {{- if $commit.pushSecret }}
  - name: registry
    secret:
      secretName: {{ $commit.pushSecret | quote }}
      items: [{key: .dockerconfigjson, path: config.json}]
  {{- end }}
{{- end }}
