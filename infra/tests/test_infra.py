"""Holds the Bicep files against what the chart and the programs need of them. `cargo xtask infra` runs this.

Parsed by a library, not compiled: Microsoft's own compiler is in no registry that the project's machines reach.
README.md names its commands.
"""

import json
import re
import unittest
from pathlib import Path

from pycep import BicepParser

INFRA = Path(__file__).parents[1]
CHART = INFRA.parent / "charts" / "popularity-reports"
FILES = {path.relative_to(INFRA).as_posix(): path for path in INFRA.rglob("*.bicep")}
PARSED = {name: BicepParser().parse(file_path=path) for name, path in FILES.items()}
MODULES = {name: parsed for name, parsed in PARSED.items() if name != "main.bicep"}
MAIN = PARSED["main.bicep"]

# https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
ROLES = {
    "69a216fc-b8fb-44d8-bc22-1f3c2cd27a39": "Azure Service Bus Data Sender",
    "4f6d3b9b-027b-4f4c-9142-0e5a2a2247e0": "Azure Service Bus Data Receiver",
    "db58b8e5-c6ad-4a2a-8342-4190687cbf4a": "Storage Blob Delegator",
    "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1": "Storage Blob Data Reader",
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": "Storage Blob Data Contributor",
}


def resources(parsed):
    return parsed.get("resources", {})


def the(module, kind):
    """The properties of the module's only resource of a type."""
    found = [r["config"] for r in resources(PARSED[f"modules/{module}.bicep"]).values() if r["type"] == kind]
    assert len(found) == 1, f"{len(found)} of {kind}"
    return found[0]["properties"]


class Documentation(unittest.TestCase):
    def test_every_parameter_and_output_is_described(self):
        for name, parsed in PARSED.items():
            for kind in ("parameters", "outputs"):
                for key, value in parsed.get(kind, {}).items():
                    described = [d["argument"] for d in value["decorators"] if d["type"] == "description"]
                    with self.subTest(file=name, key=key):
                        self.assertTrue(described and described[0].strip())

    def test_the_readme_gives_each_identity_its_postgresql_role(self):
        readme = (INFRA / "README.md").read_text()
        for program, group in {
            "api": "popularity_reports_api",
            "operator": "popularity_reports_operator",
            "exporter": "popularity_reports_exporter",
            "migrations": "popularity_reports_owner",
        }.items():
            with self.subTest(program=program):
                login = f"popularity-reports-{program}"
                self.assertRegex(readme, rf"pgaadauth_create_principal_with_oid\(\s*'{login}'")
                self.assertIn(f'GRANT {group} TO "{login}";', readme)
                migrations = "".join(p.read_text() for p in (INFRA.parent / "migrations").glob("*.sql"))
                self.assertIn(f"'{group}'", migrations)

    def test_the_files_that_the_readme_names_exist(self):
        for named in re.findall(r"(?:infra(?!/my\.)|charts|migrations)/[\w./-]+\.(?:sql|bicepparam|bicep|yaml)",
                                (INFRA / "README.md").read_text()):
            with self.subTest(named=named):
                self.assertTrue((INFRA.parent / named).exists())


class Access(unittest.TestCase):
    def test_each_identity_has_exactly_the_roles_that_its_program_uses(self):
        found = set()
        for parsed in PARSED.values():
            for resource in resources(parsed).values():
                if resource["type"] != "Microsoft.Authorization/roleAssignments":
                    continue
                config = resource["config"]
                role = config["properties"]["roleDefinitionId"]["function"]["parameters"]["resource_name_1"]
                role = ROLES[parsed["variables"][role]["value"]]
                found.add((config["properties"]["principalId"], role, config["scope"]))
        self.assertEqual(found, {
            ("apiPrincipalId", "Storage Blob Delegator", "account"),
            ("apiPrincipalId", "Storage Blob Data Reader", "container"),
            ("operatorPrincipalId", "Azure Service Bus Data Sender", "queue"),
            ("operatorPrincipalId", "Azure Service Bus Data Receiver", "queue"),
            ("operatorPrincipalId", "Storage Blob Data Contributor", "container"),
            ("exporterPrincipalId", "Storage Blob Data Contributor", "container"),
        })

    def test_each_principal_is_that_of_its_program(self):
        programs = MAIN["variables"]["programs"]["value"]
        text = FILES["main.bicep"].read_text()
        passed = re.findall(r"(\w+)PrincipalId: identities\.outputs\.identities\[(\d)\]\.principalId", text)
        self.assertEqual(len(passed), 4)
        for program, index in passed:
            self.assertEqual(programs[int(index)], program)
        passed = re.findall(r"(\w+): (?:\{\s*clientId: )?identities\.outputs\.identities\[(\d)\]\.(?:clientId|name)", text)
        self.assertEqual(len(passed), 8)
        for program, index in passed:
            self.assertEqual(programs[int(index)], program)

    def test_only_the_service_accounts_of_the_release_may_use_the_identities(self):
        credentials = resources(PARSED["modules/identities.bicep"])["credentials"]["config"]["config"]["properties"]
        self.assertEqual(credentials["subject"], "system:serviceaccount:${namespace}:${prefix}-${program}")
        self.assertEqual(credentials["audiences"], ["api://AzureADTokenExchange"])
        self.assertEqual(MAIN["variables"]["programs"]["value"], ["api", "operator", "exporter", "migrations"])

    def test_no_service_takes_a_key_or_a_password(self):
        self.assertIs(the("service-bus", "Microsoft.ServiceBus/namespaces")["disableLocalAuth"], True)
        account = the("storage", "Microsoft.Storage/storageAccounts")
        self.assertIs(account["allowSharedKeyAccess"], False)
        self.assertIs(account["allowBlobPublicAccess"], False)
        container = the("storage", "Microsoft.Storage/storageAccounts/blobServices/containers")
        self.assertEqual(container["publicAccess"], "None")
        login = the("postgres", "Microsoft.DBforPostgreSQL/flexibleServers")["authConfig"]
        self.assertEqual((login["activeDirectoryAuth"], login["passwordAuth"]), ("Enabled", "Disabled"))
        cluster = the("cluster", "Microsoft.ContainerService/managedClusters")
        self.assertIs(cluster["disableLocalAccounts"], True)
        for name, path in FILES.items():
            with self.subTest(file=name):
                self.assertNotRegex(path.read_text(), r"(?i)listKeys|listCredentials|administratorLoginPassword|@secure")


class Services(unittest.TestCase):
    def test_the_queue_drops_doubles_and_keeps_what_fails(self):
        queue = the("service-bus", "Microsoft.ServiceBus/namespaces/queues")
        self.assertIs(queue["requiresDuplicateDetection"], True)
        self.assertIs(queue["deadLetteringOnMessageExpiration"], True)
        for setting, parameter in {
            "duplicateDetectionHistoryTimeWindow": "duplicateDetectionWindow",
            "lockDuration": "lockDuration",
            "maxDeliveryCount": "maxDeliveryCount",
            "defaultMessageTimeToLive": "timeToLive",
        }.items():
            self.assertEqual(queue[setting], parameter)
        self.assertEqual(MAIN["parameters"]["queueName"]["default"], "report-requests")

    def test_deleted_files_can_be_brought_back_and_old_ones_go(self):
        blobs = the("storage", "Microsoft.Storage/storageAccounts/blobServices")
        self.assertIs(blobs["deleteRetentionPolicy"]["enabled"], True)
        self.assertIs(blobs["containerDeleteRetentionPolicy"]["enabled"], True)
        rules = the("storage", "Microsoft.Storage/storageAccounts/managementPolicies")["policy"]["rules"]
        self.assertEqual([rule["enabled"] for rule in rules], [True])
        self.assertEqual(rules[0]["definition"]["filters"]["prefixMatch"], ["${containerName}/"])
        self.assertEqual(MAIN["parameters"]["containerName"]["default"], "reports")

    def test_the_cluster_issues_tokens_and_enforces_network_policies(self):
        cluster = the("cluster", "Microsoft.ContainerService/managedClusters")
        self.assertIs(cluster["oidcIssuerProfile"]["enabled"], True)
        self.assertIs(cluster["securityProfile"]["workloadIdentity"]["enabled"], True)
        self.assertIn(cluster["networkProfile"]["networkPolicy"], ["cilium", "azure", "calico"])


class Wiring(unittest.TestCase):
    def test_each_module_is_given_its_parameters_and_no_others(self):
        used = set()
        for name, module in MAIN["modules"].items():
            path = module["detail"]["path"]
            used.add(path)
            declared = PARSED[path]["parameters"]
            required = {key for key, value in declared.items() if value["default"] is None}
            given = set(module["config"]["params"])
            with self.subTest(module=name):
                self.assertLessEqual(given, set(declared))
                self.assertLessEqual(required, given)
        self.assertEqual(used, set(MODULES))

    def test_outputs_that_are_read_exist(self):
        for name, output in re.findall(r"\b(\w+)\.outputs\.(\w+)", FILES["main.bicep"].read_text()):
            path = MAIN["modules"][name]["detail"]["path"]
            with self.subTest(read=f"{name}.outputs.{output}"):
                self.assertIn(output, PARSED[path]["outputs"])

    def test_every_parameter_is_used(self):
        for name, parsed in PARSED.items():
            text = FILES[name].read_text()
            for key in [*parsed["parameters"], *parsed.get("variables", {})]:
                with self.subTest(file=name, key=key):
                    self.assertGreater(len(re.findall(rf"\b{key}\b", text)), 1)

    def test_each_value_for_the_chart_is_one_that_the_chart_knows(self):
        schema = json.loads((CHART / "values.schema.json").read_text())

        def walk(value, node, at):
            if "$ref" in node:
                node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]]
            known = node.get("properties", {})
            for key, inner in value.items():
                self.assertIn(key, known, f"the chart has no value {'.'.join([*at, key])}")
                if isinstance(inner, dict) and set(inner) not in ({"operator"}, {"function"}):
                    walk(inner, known[key], (*at, key))

        walk(MAIN["outputs"]["chartValues"]["value"], schema, ())


if __name__ == "__main__":
    unittest.main()
