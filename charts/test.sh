#!/bin/sh
# Tests the chart: its settings, what it renders, and what a real API server says to it, to the kinds and to the YAML of the
# operator guide. Needs Linux and root for the control plane, go and cargo for what is not built yet.
#
#   charts/test.sh
#
# CARRACK_CACHE: the cache directory; default .cache in the root of the repository.
# CARRACK_CONTROLLER: the program whose kinds are tested; default target/debug/carrack-controller.
# CARRACK_CLUSTER: the program that starts clusters; default target/debug/cluster.
# KUBECONFIG: a control plane to use, with an API server and the kinds of snapshots; without it one is started and ended.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/.." && pwd)
export CARRACK_CACHE="${CARRACK_CACHE:-$root/.cache}"
controller=${CARRACK_CONTROLLER:-$root/target/debug/carrack-controller}
cluster=${CARRACK_CLUSTER:-$root/target/debug/cluster}
chart=$here/carrack
guide=$root/docs/operator-guide.md
export PATH="$CARRACK_CACHE/cluster/bin:$PATH"

for program in "$controller" "$cluster"; do
    [ -x "$program" ] || {
        echo "charts/test.sh: there is no $program: cargo build -p carrack-controller -p carrack-cluster" >&2
        exit 2
    }
done
"$root/tests/cluster/build.sh" kubernetes

work=$(mktemp -d /tmp/carrack-chart-XXXXXX)
bed='' running=''
end() {
    [ -z "$running" ] || kill "$running" 2>/dev/null || true
    # A bed that cannot be ended is said, and must not hide how the tests ended.
    [ -z "$bed" ] || "$cluster" down "$bed" || echo "charts/test.sh: $bed could not be ended: $cluster down $bed" >&2
    rm -rf "$work"
}
trap end EXIT
trap 'exit 1' INT TERM HUP

passed=0 failed=0
pass() { passed=$((passed + 1)); }
fail() { # fail WORDS: they say what was expected
    failed=$((failed + 1))
    echo "charts/test.sh: FAILED: $1" >&2
}
expect() { # expect WORDS COMMAND...: the command succeeds; what it says is shown only if it does not
    words=$1
    shift
    if "$@" >"$work/said" 2>&1; then pass; else
        fail "$words"
        cat "$work/said" >&2
    fi
}
refused() { # refused WORDS IN-THE-ANSWER COMMAND...: the command fails, and says so
    words=$1 answer=$2
    shift 2
    if "$@" >"$work/said" 2>&1; then fail "$words: it was accepted"; return; fi
    if grep -qF -- "$answer" "$work/said"; then pass; else
        fail "$words: refused, but not with the words: $answer"
        cat "$work/said" >&2
    fi
}
render() { # render FILE SWITCH...: what would be installed
    file=$1
    shift
    helm template carrack "$chart" --namespace carrack "$@" >"$file"
}

echo 'charts/test.sh: the kinds of the chart are those of the program'
"$here/crds.py" "$controller" "$work/crds" >/dev/null
expect "charts/carrack/crds is what $controller prints; charts/crds.py writes it" diff -r "$work/crds" "$chart/crds"

echo 'charts/test.sh: settings'
expect 'helm lint, as it comes' helm lint --strict "$chart"
expect 'helm lint with everything set' helm lint --strict "$chart" --values "$chart/tests/full.yaml"
expect 'it renders as it comes' render "$work/default.yaml" --set namespace.create=true
expect 'it renders with everything set' render "$work/full.yaml" --values "$chart/tests/full.yaml"
expect 'it renders with rights to all secrets' render "$work/all-secrets.yaml" --set rbac.secrets=cluster
expect 'it renders for a version that is old enough' render "$work/old.yaml" --kube-version 1.30.0
refused 'a version that is too old' 'incompatible with Kubernetes v1.29.0' render "$work/older.yaml" --kube-version 1.29.0
for file in "$chart"/tests/refused/*.yaml; do
    words=$(sed -n '1s/^# refused: //p' "$file")
    [ -n "$words" ] || fail "$file does not begin with '# refused: WORDS'"
    refused "settings of ${file##*/}" "$words" render "$work/refused.yaml" --values "$file"
done
expect 'every setting of the schema has a description, and nothing else is let in' python3 - "$chart/values.schema.json" <<'PYTHON'
import json, sys
# What the API server holds to a schema of its own.
open_objects = {"repository.spec", "moverType.spec", "tolerations[]", "global"}
wrong = []
def look(schema, path):
    if not schema.get("description"):
        wrong.append(f"{path or 'the schema'} has no description")
    if schema.get("type") == "object" and path not in open_objects and "additionalProperties" not in schema:
        wrong.append(f"{path or 'the schema'} lets anything in")
    for name, below in schema.get("properties", {}).items():
        look(below, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        look(schema["items"], path + "[]")
    if isinstance(schema.get("additionalProperties"), dict):
        look(schema["additionalProperties"], path + ".*")
look(json.load(open(sys.argv[1])), "")
sys.exit("\n".join(wrong) or 0)
PYTHON

for name in $(grep -oh 'carrack_[a-z_]*[a-z]' "$chart/templates/monitoring.yaml" "$chart/dashboards/carrack.json" | sort -u); do
    registered=$(echo "$name" | sed -E 's/^carrack_//; s/_bucket$//; s/_total$//; s/_(seconds|bytes)$//')
    expect "the controller counts $name" grep -q "\"$registered\"" "$root/controller/src/metrics.rs"
done

if [ -z "${KUBECONFIG:-}" ]; then
    echo 'charts/test.sh: a control plane starts'
    bed=$work/bed
    "$cluster" up "$bed" --level control-plane >"$work/cluster" 2>&1 || {
        cat "$work/cluster" >&2
        exit 1
    }
    export KUBECONFIG="$bed/one/keys/admin.kubeconfig"
fi
# The kinds of the Prometheus operator, which a cluster may have.
operator=$(cd "$here/monitoring" &&
    "$root/tests/patiently.sh" go mod download github.com/prometheus-operator/prometheus-operator &&
    go list -m -f '{{.Dir}}' github.com/prometheus-operator/prometheus-operator)

echo 'charts/test.sh: a real API server takes all of it'
take() { kubectl apply --server-side --force-conflicts --validate=strict "$@"; }
expect 'the kinds are accepted' take -f "$chart/crds"
expect 'the kinds of the Prometheus operator are accepted' take \
    -f "$operator/example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml" \
    -f "$operator/example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml"
expect 'all kinds are served' kubectl wait --for=condition=Established --timeout=90s customresourcedefinition --all
for namespace in shop office; do
    kubectl get namespace "$namespace" >/dev/null 2>&1 || kubectl create namespace "$namespace" >/dev/null
done
expect 'the install, as it comes, is accepted' take -f "$work/default.yaml"

account=system:serviceaccount:carrack:carrack-controller
settle() { # settle yes|no COMMAND...: waits until it succeeds, or fails: rights and policies work a moment after they were made
    wanted=$1
    shift
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        if "$@" >/dev/null 2>&1; then found=yes; else found=no; fi
        [ "$found" != "$wanted" ] || return 0
        sleep 1
    done
}
may() { # may yes|no VERB RESOURCE NAMESPACE|- [SWITCH...]: what the controller may do
    answer=$1 verb=$2 resource=$3 namespace=$4
    shift 4
    if [ "$namespace" = - ]; then where=--all-namespaces; else where=--namespace=$namespace; fi
    # The server hears of new rights a moment after they were made.
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        said=$(kubectl auth can-i "$verb" "$resource" "$where" "--as=$account" "$@" 2>"$work/said" || true)
        [ "$said" != "$answer" ] || break
        sleep 1
    done
    if [ "$said" = "$answer" ]; then pass; else
        fail "may the controller $verb $resource in $namespace $*? expected $answer, got ${said:-nothing: $(cat "$work/said")}"
    fi
}
echo 'charts/test.sh: what the controller may do, and what it may not'
while read -r answer verb resource namespace switches; do
    # shellcheck disable=SC2086 # switches are words
    may "$answer" "$verb" "$resource" "$namespace" $switches
done <<'RIGHTS'
yes watch datamoverbackups.carrack.dev -
yes watch datamoverrestores.carrack.dev -
yes watch repositories.carrack.dev -
yes watch clusterrepositories.carrack.dev -
yes watch datamovertypes.carrack.dev -
yes patch datamoverbackups.carrack.dev shop
yes patch datamoverbackups.carrack.dev shop --subresource=status
yes patch datamoverrestores.carrack.dev shop --subresource=status
yes patch clusterrepositories.carrack.dev - --subresource=status
yes patch repositories.carrack.dev shop --subresource=status
yes patch datamovertypes.carrack.dev - --subresource=status
yes create datamoverrestores.carrack.dev shop
yes watch persistentvolumeclaims -
yes create persistentvolumeclaims shop
yes patch persistentvolumeclaims shop
yes update persistentvolumeclaims shop --subresource=finalizers
yes delete persistentvolumeclaims carrack
yes patch persistentvolumes -
yes create persistentvolumes -
yes delete persistentvolumes -
yes list pods shop
yes list storageclasses.storage.k8s.io -
yes list nodes -
yes create volumesnapshots.snapshot.storage.k8s.io shop
yes delete volumesnapshots.snapshot.storage.k8s.io shop
yes create volumesnapshotcontents.snapshot.storage.k8s.io -
yes delete volumesnapshotcontents.snapshot.storage.k8s.io -
yes list volumesnapshotclasses.snapshot.storage.k8s.io -
yes get snapshotmetadataservices.cbt.storage.k8s.io -
yes create events.events.k8s.io shop
yes get namespaces/kube-system -
yes create pods carrack
yes delete pods carrack
yes get pods carrack --subresource=log
yes get secrets carrack
yes create secrets carrack
yes delete secrets carrack
yes create leases.coordination.k8s.io carrack
yes get leases.coordination.k8s.io/carrack-controller carrack
yes update leases.coordination.k8s.io/carrack-controller carrack
no get secrets shop
no list secrets -
no create secrets shop
no create pods shop
no get pods shop
no get pods shop --subresource=log
no create pods carrack --subresource=exec
no update leases.coordination.k8s.io/another carrack
no delete persistentvolumeclaims shop
no delete datamoverbackups.carrack.dev shop
no create datamoverbackups.carrack.dev shop
no delete datamoverrestores.carrack.dev shop
no patch datamovertypes.carrack.dev -
no create clusterrepositories.carrack.dev -
no restore clusterrepositories.carrack.dev -
no list namespaces -
no get nodes -
no create serviceaccounts carrack --subresource=token
yes create serviceaccounts/carrack-changed-blocks carrack --subresource=token
no create serviceaccounts/carrack-controller carrack --subresource=token
no create clusterrolebindings.rbac.authorization.k8s.io -
no impersonate users -
RIGHTS

volume() { # volume NAME POLICY ANNOTATIONS: of a storage that nobody looks for
    printf '{"apiVersion":"v1","kind":"PersistentVolume","metadata":{"name":"%s","annotations":%s},"spec":{"capacity":{"storage":"1Mi"},"accessModes":["ReadWriteOnce"],"persistentVolumeReclaimPolicy":"%s","csi":{"driver":"none.example","volumeHandle":"%s"}}}' "$1" "$3" "$2" "$1" >"$work/volume.json"
}
alias='{"carrack.dev/alias-of":"theirs"}' guard='only second names of them'
volume theirs Retain '{}'
expect 'somebody makes a volume' take -f "$work/volume.json"
settle no kubectl --as="$account" delete persistentvolume theirs --dry-run=server
refused 'the controller deletes no volume' "$guard" kubectl --as="$account" delete persistentvolume theirs
refused 'the controller makes no volume a second name' "$guard" kubectl --as="$account" annotate persistentvolume theirs carrack.dev/alias-of=other
volume mine Retain '{}'
refused 'the controller makes no volume' "$guard" take --as="$account" -f "$work/volume.json"
volume second Delete "$alias"
refused 'the controller makes no second name that deletes' "$guard" take --as="$account" -f "$work/volume.json"
volume second Retain "$alias"
expect 'the controller makes a second name' take --as="$account" -f "$work/volume.json"
refused 'a second name always keeps its storage' "$guard" kubectl --as="$account" patch persistentvolume second --patch '{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}'
expect 'the controller deletes a second name' kubectl --as="$account" delete persistentvolume second --wait=false
expect 'the controller keeps a volume' kubectl --as="$account" patch persistentvolume theirs --patch '{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}'

expect 'the install with everything set is accepted' take -f "$work/full.yaml"
may yes get secrets/store shop
may no get secrets/another shop
may no list secrets shop
may yes get secrets/any office
may no get secrets default
may no get namespaces/kube-system -
expect 'the install with rights to all secrets is accepted' take -f "$work/all-secrets.yaml"
may yes get secrets default
may no list secrets default

echo 'charts/test.sh: people'
person() { kubectl --as=anna "$@"; }
kubectl create rolebinding anna --namespace=shop --clusterrole=edit --user=anna --dry-run=client -o yaml | take -f - >/dev/null
settle yes person auth can-i create datamoverbackups.carrack.dev --namespace=shop
settle yes person auth can-i list datamoverrestores.carrack.dev --namespace=shop
expect 'who may change a namespace may back it up' person auth can-i create datamoverbackups.carrack.dev --namespace=shop
expect 'who may change a namespace may look at its restores' person auth can-i list datamoverrestores.carrack.dev --namespace=shop
refused 'who may change a namespace writes no status' no person auth can-i patch datamoverbackups.carrack.dev --subresource=status --namespace=shop
refused 'who may change a namespace makes no repository' no person auth can-i create repositories.carrack.dev --namespace=shop
refused 'who may change a namespace reaches no other' no person auth can-i create datamoverrestores.carrack.dev --namespace=office
restore() { # restore SOURCE: the restore of a source, in namespace shop
    printf '{"apiVersion":"carrack.dev/v1alpha1","kind":"DataMoverRestore","metadata":{"name":"guarded","namespace":"shop"},"spec":{"destinationClaimRef":{"name":"guarded"},"source":%s}}' "$1" >"$work/restore.json"
}
restored() { person apply --server-side --validate=strict --dry-run=server -f "$work/restore.json"; }
restore '{"snapshotID":"0123456789abcdef"}'
settle no restored
for source in '{"snapshotID":"0123456789abcdef"}' '{"identity":{"namespace":"office","claim":"orders"}}' '{"identity":{"cluster":"another","claim":"orders"}}'; do
    restore "$source"
    refused "a restore of $source by who may change one namespace" 'carrack-restore-any' restored
done
for source in '{"backup":"nightly"}' '{"identity":{"claim":"orders"}}' '{"identity":{"namespace":"shop","claim":"orders"}}'; do
    restore "$source"
    expect "a restore of $source by who may change its namespace" restored
done
kubectl create clusterrolebinding anna --clusterrole=carrack-restore-any --user=anna --dry-run=client -o yaml | take -f - >/dev/null
restore '{"identity":{"cluster":"another","namespace":"office","claim":"orders"}}'
settle yes restored
expect 'a restore of anything by who has carrack-restore-any' restored

echo 'charts/test.sh: pod security, rules, documentation, guide'
kubectl create namespace restricted --dry-run=client -o yaml | take -f - >/dev/null
kubectl label namespace restricted --overwrite pod-security.kubernetes.io/enforce=restricted >/dev/null
kubectl create serviceaccount carrack-controller --namespace=restricted --dry-run=client -o yaml | take -f - >/dev/null
kubectl get deployment carrack-controller --namespace=carrack -o json | python3 -c '
import json, sys
template = json.load(sys.stdin)["spec"]["template"]
print(json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "controller", "namespace": "restricted"}, "spec": template["spec"]}))' >"$work/pod.json"
expect 'the pod of the controller is one for the level restricted' take --dry-run=server -f "$work/pod.json"

expect 'rules and examples' "$here/examples.py" rules "$root/controller/api/examples" "$controller"
[ "$failed" -ne 0 ] || cat "$work/said"
explained() { kubectl explain datamoverrestores.spec.source.identity.asOf --api-version=carrack.dev/v1alpha1 | grep -q 'begun no later'; }
expect 'kubectl explain has the words of a field deep inside' explained

expect 'the YAML of the operator guide' "$here/examples.py" guide "$guide"
[ "$failed" -ne 0 ] || cat "$work/said"
"$here/examples.py" blocks "$guide" "$work/guide" >/dev/null
for file in "$work"/guide/*-values*.yaml; do
    expect "the settings ${file##*/} of the guide" render "$work/guide.yaml" --values "$file"
    expect "the install with ${file##*/} of the guide is accepted" take -f "$work/guide.yaml"
done

echo 'charts/test.sh: the controller works with these rights, as far as it can without nodes'
cp "$KUBECONFIG" "$work/account.kubeconfig"
user=$(kubectl config view -o 'jsonpath={.users[0].name}')
kubectl config --kubeconfig="$work/account.kubeconfig" delete-user "$user" >/dev/null
kubectl config --kubeconfig="$work/account.kubeconfig" set-credentials "$user" \
    "--token=$(kubectl create token carrack-controller --namespace=carrack)" >/dev/null
KUBECONFIG=$work/account.kubeconfig CARRACK_CLUSTER_NAME=production CARRACK_METRICS_ADDRESS=127.0.0.1:0 \
    "$controller" run >"$work/controller.log" 2>&1 &
running=$!
expect 'the controller asks to lead' kubectl wait --for=create --timeout=60s \
    --namespace carrack lease/carrack-controller
expect 'the controller leads' kubectl wait --for='jsonpath={.spec.holderIdentity}' --timeout=60s \
    lease/carrack-controller --namespace=carrack
expect 'the controller says how far the repository of the guide is' kubectl wait \
    --for='jsonpath={.status.conditions[?(@.type=="Ready")].reason}=InProgress' --timeout=60s clusterrepository/main
expect 'the controller says how far the repository of a namespace is' kubectl wait --namespace=tenant \
    --for='jsonpath={.status.conditions[?(@.type=="Ready")].reason}=InProgress' --timeout=60s repository/own
expect 'the controller says what a backup waits for' kubectl wait --namespace=shop \
    --for='jsonpath={.status.conditions[?(@.type=="Accepted")].reason}=RepositoryNotReady' --timeout=60s datamoverbackup/orders-1
expect 'the controller makes the restore that a claim asks for' sh -c \
    'for _ in $(seq 60); do kubectl get datamoverrestores --namespace=shop -o name | grep -q /populate- && exit; sleep 1; done; exit 1'
# What it says of a repository may be there before its pod is.
expect 'the pods of the repositories are let in' sh -c \
    'for _ in $(seq 60); do test "$(kubectl get pods --namespace=carrack --selector carrack.dev/task=connect -o name | wc -l)" -lt 2 || exit 0; sleep 1; done; exit 1'
kill "$running"
wait "$running" || true
running=
expect 'the controller was refused nothing' sh -c '! grep -i forbidden "$1"' sh "$work/controller.log"
[ "$failed" -eq 0 ] || cat "$work/controller.log" >&2

if [ "$failed" -ne 0 ]; then
    echo "charts/test.sh: $failed of $((passed + failed)) checks FAILED" >&2
    exit 1
fi
echo "charts/test.sh: all $passed checks passed"
