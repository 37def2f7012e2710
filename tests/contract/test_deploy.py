"""Holds what docs/deploy deploys to the server that is deployed: names, ports, times and paths; and lints it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from certificates import authority
from m2ib.v1 import attribution_pb2
from m2ib_client._affinity import HEADER
from m2ib_server.__main__ import LEAVING_SECONDS, app
from m2ib_server.bootstrap import ENGINE_SECONDS
from m2ib_server.sight import tracing
from m2ib_server.sight.audit_writer import CLOSE_SECONDS
from m2ib_server.watch.drain import CUT_SECONDS, FLUSH_SECONDS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs/deploy"
PROGRAMS = Path(sys.executable).parent
COMPOSE = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())
MANIFESTS = {
    file.name: yaml.safe_load(file.read_text())
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    if file.name != "kustomization.yaml"
}
POD = MANIFESTS["statefulset.yaml"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
POD_ENVIRONMENT = {variable["name"]: variable["value"] for variable in CONTAINER["env"]}
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
COMPOSE_ENVIRONMENT = COMPOSE["services"]["server"]["environment"]
ENVOY = yaml.safe_load((DEPLOY / "envoy/envoy.yaml").read_text())
(ENVOY_CLUSTER,) = ENVOY["static_resources"]["clusters"]
HEALTH_NAMES = {"", "m2ib.v1.AttributionService"}
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def tool(name):
    """Return a program of the virtual environment or of the system; skip the test where there is none."""
    found = shutil.which(name, path=str(PROGRAMS)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def passed(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def variables():
    """Return the variables that `m2ib-server serve` reads."""
    command = typer.main.get_command(app).commands["serve"]
    return {name for option in command.params for name in _listed(option.envvar)}


def _listed(names):
    return [names] if isinstance(names, str) else names or []


def port_of(address):
    return int(address.rpartition(":")[2])


def seconds(duration):
    assert duration.endswith("s")
    return float(duration[:-1])


@pytest.mark.parametrize("environment", [POD_ENVIRONMENT, COMPOSE_ENVIRONMENT], ids=["kubernetes", "compose"])
def test_every_variable_is_one_that_the_server_reads(environment):
    assert set(environment) <= variables()
    assert {"M2IB_TLS_CERTIFICATE", "M2IB_TOKENS", "M2IB_AUDIT_LOG"} <= set(environment)
    assert "M2IB_INSECURE" not in environment


def test_variables_that_the_readme_names_are_the_servers():
    words = (DEPLOY / "README.md").read_text().replace("`", " ").replace("=", " ").split()
    named = {word.strip(".,()") for word in words if word.startswith("M2IB_")}
    assert named <= variables() | {"M2IB_MODELS_DIR"}
    assert "M2IB_GRACE_SECONDS" in named


# What a server may take beyond its grace to end in order.
AFTER_GRACE_SECONDS = sum(
    [CUT_SECONDS, FLUSH_SECONDS, ENGINE_SECONDS, CLOSE_SECONDS, tracing.FLUSH_SECONDS, LEAVING_SECONDS]
)


def test_a_pod_has_the_time_to_drain():
    pause = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = float(POD_ENVIRONMENT["M2IB_GRACE_SECONDS"])
    assert pause >= 5
    assert POD["terminationGracePeriodSeconds"] > pause + grace + AFTER_GRACE_SECONDS


def test_a_composed_server_has_the_time_to_drain():
    grace = float(COMPOSE_ENVIRONMENT["M2IB_GRACE_SECONDS"])
    assert seconds(COMPOSE["services"]["server"]["stop_grace_period"]) > grace + AFTER_GRACE_SECONDS


def test_the_documents_rule_gives_a_server_the_time_to_drain():
    rule = " ".join((ROOT / "docs/operations/overload.md").read_text().split())
    (told,) = re.findall(r"`--grace-seconds` \+ (\d+) s", rule)
    assert int(told) == AFTER_GRACE_SECONDS


def test_ports_are_those_that_the_server_listens_on():
    assert {
        "grpc": port_of(POD_ENVIRONMENT["M2IB_LISTEN"]),
        "health": port_of(POD_ENVIRONMENT["M2IB_HEALTH_LISTEN"]),
        "metrics": port_of(POD_ENVIRONMENT["M2IB_METRICS_LISTEN"]),
    } == PORTS
    service = MANIFESTS["service.yaml"]["spec"]
    assert service["clusterIP"] == "None"
    assert {port["targetPort"] for port in service["ports"]} <= set(PORTS)
    assert all(port["port"] == PORTS[port["targetPort"]] for port in service["ports"])
    allowed = [port["port"] for rule in MANIFESTS["networkpolicy.yaml"]["spec"]["ingress"] for port in rule["ports"]]
    assert set(allowed) == {"grpc", "metrics"}
    listen = port_of(COMPOSE_ENVIRONMENT["M2IB_LISTEN"])
    assert COMPOSE["services"]["server"]["ports"] == [f"{listen}:{listen}"]


@pytest.mark.parametrize("probe", PROBES)
def test_probes_ask_the_plaintext_address_for_a_name_that_has_health(probe):
    asked = CONTAINER[probe]["grpc"]
    assert asked["port"] == PORTS["health"]
    assert asked["service"] in HEALTH_NAMES


def test_a_start_may_take_longest_a_stuck_server_long_and_an_unready_one_no_time():
    patience = {name: CONTAINER[name]["periodSeconds"] * CONTAINER[name]["failureThreshold"] for name in PROBES}
    assert patience["readinessProbe"] <= 10
    assert 300 <= patience["livenessProbe"] < patience["startupProbe"]


def test_the_names_of_health_are_the_servers():
    services = {service.full_name for service in attribution_pb2.DESCRIPTOR.services_by_name.values()}
    assert HEALTH_NAMES - {""} <= services


def test_a_pod_may_do_nothing_that_it_need_not():
    inside = CONTAINER["securityContext"]
    assert inside == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    outside = POD["securityContext"]
    assert outside["runAsNonRoot"]
    assert f"--uid {outside['runAsUser']} " in (ROOT / "Dockerfile").read_text()
    assert outside["seccompProfile"] == {"type": "RuntimeDefault"}
    assert POD["automountServiceAccountToken"] is False
    assert {"cpu", "memory"} <= set(CONTAINER["resources"]["requests"])
    assert MANIFESTS["networkpolicy.yaml"]["spec"]["egress"] == []


@pytest.mark.parametrize("name", list(COMPOSE["services"]))
def test_composed_services_have_no_capabilities(name):
    service = COMPOSE["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]


def test_a_pod_computes_on_the_processors_that_it_asks_for():
    assert POD_ENVIRONMENT["M2IB_THREADS"] == CONTAINER["resources"]["requests"]["cpu"]


def test_every_mount_has_a_volume_and_every_path_a_mount():
    volumes = {volume["name"] for volume in POD["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in MANIFESTS["statefulset.yaml"]["spec"]["volumeClaimTemplates"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert set(mounts) == volumes
    assert "subPath" not in str(CONTAINER["volumeMounts"])  # what is mounted so never changes
    paths = [value for value in POD_ENVIRONMENT.values() if value.startswith("/")]
    assert paths
    assert all(str(Path(path).parent) in mounts.values() for path in paths)
    assert "M2IB_MODELS=/models" in (ROOT / "Dockerfile").read_text()
    assert "/models" in mounts.values()


def test_composed_paths_are_mounted_and_what_is_mounted_is_there():
    server = COMPOSE["services"]["server"]
    secrets = {f"/run/secrets/{name}" for name in server["secrets"]}
    paths = [value for value in COMPOSE_ENVIRONMENT.values() if value.startswith("/")]
    assert {path for path in paths if path.startswith("/run/")} == secrets
    assert set(server["secrets"]) <= set(COMPOSE["secrets"])
    for service in COMPOSE["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / "compose" / source).exists(), source


def test_the_composed_server_may_write_where_it_is_told_to():
    server = COMPOSE["services"]["server"]
    assert server["read_only"]
    volumes = dict(volume.split(":") for volume in server["volumes"] if volume.split(":")[0] in COMPOSE["volumes"])
    paths = [path for path in COMPOSE_ENVIRONMENT.values() if path.startswith("/") and not path.startswith("/run/")]
    folders = {str(Path(path).parent) for path in paths}
    assert {COMPOSE_ENVIRONMENT["M2IB_AUDIT_LOG"], COMPOSE_ENVIRONMENT["M2IB_ALIASES_FILE"]} <= set(paths)
    assert folders <= set(volumes.values())
    # A new named volume has the owner of the image's folder that it is mounted on, or root's where there is none.
    assert folders <= set(folders_of_the_image())


def folders_of_the_image():
    """Return the folders that the last stage of the Dockerfile makes for the user that it runs as."""
    stage = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2].replace("\\\n", " ")
    (user,) = re.findall(r"^USER (\d+)$", stage, re.MULTILINE)
    as_root = stage.partition("\nUSER ")[0]
    made = re.findall(rf"install -d -o {user} -g {user} (.+?)\s*(?:&&|$)", as_root, re.MULTILINE)
    return [word for words in made for word in words.split() if word.startswith("/")]


def test_git_ignores_the_composed_secrets():
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    files = [secret["file"] for secret in COMPOSE["secrets"].values()]
    paths = [str((DEPLOY / "compose" / file).relative_to(ROOT)) for file in files]
    assert passed(tool("git"), "-C", ROOT, "check-ignore", "--no-index", *paths).split() == paths


def test_selectors_select_the_pods():
    labels = MANIFESTS["statefulset.yaml"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        MANIFESTS["statefulset.yaml"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["service.yaml"]["spec"]["selector"],
        MANIFESTS["poddisruptionbudget.yaml"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["networkpolicy.yaml"]["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    assert MANIFESTS["statefulset.yaml"]["spec"]["serviceName"] == MANIFESTS["service.yaml"]["metadata"]["name"]


def test_the_kustomization_has_every_manifest():
    kustomization = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())
    assert set(kustomization["resources"]) == set(MANIFESTS)
    assert [image["name"] for image in kustomization["images"]] == [CONTAINER["image"]]


def test_prometheus_scrapes_the_composed_server():
    scrape = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    (job,) = scrape["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"server:{port_of(COMPOSE_ENVIRONMENT['M2IB_METRICS_LISTEN'])}"]}]
    mounted = {volume.split(":")[1] for volume in COMPOSE["services"]["prometheus"]["volumes"]}
    assert {f"/etc/prometheus/{file}" for file in scrape["rule_files"]} <= mounted


def test_grafana_reads_the_composed_prometheus():
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    assert sources["datasources"][0]["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/m2ib.yml").read_text())["providers"][0]
    mounted = [volume.split(":")[1] for volume in COMPOSE["services"]["grafana"]["volumes"]]
    assert any(target.startswith(f"{provider['options']['path']}/") for target in mounted)


def test_envoy_hashes_the_clients_header_onto_the_headless_service():
    (listener,) = ENVOY["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    (route,) = manager["route_config"]["virtual_hosts"][0]["routes"]
    assert route["route"]["hash_policy"] == [{"header": {"header_name": HEADER}}]
    assert ENVOY_CLUSTER["lb_policy"] == "RING_HASH"
    (check,) = ENVOY_CLUSTER["health_checks"]
    assert check["grpc_health_check"]["service_name"] in HEALTH_NAMES
    endpoint = ENVOY_CLUSTER["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    address = endpoint["address"]["socket_address"]
    name = f"{MANIFESTS['service.yaml']['metadata']['name']}.{MANIFESTS['namespace.yaml']['metadata']['name']}"
    assert address == {"address": f"{name}.svc.cluster.local", "port_value": PORTS["grpc"]}


def test_the_made_certificate_has_every_name_that_is_asked_for(tmp_path):
    passed("sh", DEPLOY / "certificates.sh", tmp_path, "m2ib.example")
    upstream = ENVOY_CLUSTER["transport_socket"]["typed_config"]
    (matched,) = upstream["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"]
    pods = re.findall(r"m2ib-server-\d[a-z0-9.-]*[a-z]", (DEPLOY / "README.md").read_text())
    assert pods
    for name in ["m2ib.example", upstream["sni"], matched["matcher"]["exact"], *pods]:
        authority_, certificate = tmp_path / "ca.crt", tmp_path / "tls.crt"
        passed(tool("openssl"), "verify", "-CAfile", authority_, "-verify_hostname", name, certificate)
    envoys = set(re.findall(r"/tls/([a-z.]+)", (DEPLOY / "envoy/envoy.yaml").read_text()))
    assert envoys <= {file.name for file in tmp_path.iterdir()}


def test_nothing_in_the_dockerfile_is_known_to_go_wrong():
    passed(tool("hadolint"), ROOT / "Dockerfile")


def test_yaml_is_tidy():
    passed(tool("yamllint"), "--strict", "--config-file", DEPLOY / ".yamllint", DEPLOY)


def test_the_compose_file_is_one():
    passed(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose/compose.yaml")


def test_manifests_have_no_field_that_kubernetes_does_not_know():
    passed(tool("kubernetes-validate"), "--strict", *(DEPLOY / "kubernetes" / name for name in MANIFESTS))


def test_the_kustomization_builds():
    built = list(yaml.safe_load_all(passed(tool("kubectl"), "kustomize", DEPLOY / "kubernetes")))
    assert {manifest["kind"] for manifest in built} == {manifest["kind"] for manifest in MANIFESTS.values()}
    assert {manifest["metadata"].get("namespace", "m2ib") for manifest in built} == {"m2ib"}


def test_prometheus_takes_its_configuration(tmp_path):
    for file in (DEPLOY / "prometheus/prometheus.yml", ROOT / "docs/operations/alerts.yml"):
        shutil.copy(file, tmp_path)
    passed(tool("promtool"), "check", "config", tmp_path / "prometheus.yml")


def test_envoy_takes_its_configuration(tmp_path):
    envoy, pair = tool("envoy"), authority()
    pair.write(tmp_path / "tls.crt", tmp_path / "tls.key")
    (tmp_path / "ca.crt").write_bytes(pair.pem)
    configuration = (DEPLOY / "envoy/envoy.yaml").read_text().replace("/tls/", f"{tmp_path}/")
    (tmp_path / "envoy.yaml").write_text(configuration)
    passed(envoy, "--mode", "validate", "--config-path", tmp_path / "envoy.yaml")
