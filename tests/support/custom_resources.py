"""What the objects that are no part of Kubernetes may say, as JSON schemas: as far as `deploy/kubernetes` uses them.

KEDA's by its definitions of version 2.21 (the names in a Kafka trigger's `metadata` by its scaler, since the definition
takes any there), the Prometheus operator's by its monitoring.coreos.com/v1. Unknown names are refused.
"""

from typing import Any

Schema = dict[str, Any]

_COUNT: Schema = {"type": "integer", "minimum": 0}
_NAME: Schema = {"type": "string", "minLength": 1}
_BOOLEAN: Schema = {"enum": ["true", "false"]}
_NUMBER: Schema = {"type": "string", "pattern": r"^[1-9]\d*$"}


def _only(required: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of, "minItems": 1}


def _object(api: str, kind: str, spec: Schema) -> Schema:
    metadata = _only(("name", "namespace"), name=_NAME, namespace=_NAME, labels={"type": "object"})
    return _only(("apiVersion", "kind", "metadata", "spec"), apiVersion={"const": api}, kind={"const": kind},
                 metadata=metadata, spec=spec)  # fmt: skip


_RULES = _only(
    stabilizationWindowSeconds={"type": "integer", "minimum": 0, "maximum": 3600},
    selectPolicy={"enum": ["Max", "Min", "Disabled"]},
    policies=_list(
        _only(
            ("type", "value", "periodSeconds"),
            type={"enum": ["Pods", "Percent"]},
            value={"type": "integer", "minimum": 1},
            periodSeconds={"type": "integer", "minimum": 1, "maximum": 1800},
        )
    ),
)

_KAFKA_TRIGGER = _only(
    ("type", "metadata"),
    type={"const": "kafka"},
    name=_NAME,
    metricType={"enum": ["AverageValue", "Value"]},
    authenticationRef=_only(
        ("name",), name=_NAME, kind={"enum": ["TriggerAuthentication", "ClusterTriggerAuthentication"]}
    ),
    metadata=_only(
        ("bootstrapServers", "consumerGroup"),
        bootstrapServers=_NAME,
        consumerGroup=_NAME,
        topic=_NAME,
        partitionLimitation=_NAME,
        lagThreshold=_NUMBER,
        activationLagThreshold=_NUMBER,
        offsetResetPolicy={"enum": ["earliest", "latest"]},
        allowIdleConsumers=_BOOLEAN,
        limitToPartitionsWithLag=_BOOLEAN,
        ensureEvenDistributionOfPartitions=_BOOLEAN,
        excludePersistentLag=_BOOLEAN,
        scaleToZeroOnInvalidOffset=_BOOLEAN,
        version=_NAME,
        tls={"enum": ["enable", "disable"]},
        unsafeSsl=_BOOLEAN,
        sasl={"enum": ["none", "plaintext", "scram_sha256", "scram_sha512", "oauthbearer", "gssapi"]},
    ),
)

_CPU_TRIGGER = _only(
    ("type", "metadata", "metricType"),
    type={"const": "cpu"},
    name=_NAME,
    metricType={"enum": ["Utilization", "AverageValue"]},
    metadata=_only(("value",), value=_NUMBER, containerName=_NAME),
)

_SCALED_OBJECT = _only(
    ("scaleTargetRef", "triggers"),
    scaleTargetRef=_only(("name",), apiVersion=_NAME, kind=_NAME, name=_NAME, envSourceContainerName=_NAME),
    pollingInterval={"type": "integer", "minimum": 1},
    cooldownPeriod=_COUNT,
    initialCooldownPeriod=_COUNT,
    idleReplicaCount=_COUNT,
    minReplicaCount=_COUNT,
    maxReplicaCount={"type": "integer", "minimum": 1},
    fallback=_only(
        ("failureThreshold", "replicas"),
        failureThreshold=_COUNT,
        replicas=_COUNT,
        behavior={"enum": ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]},
    ),
    triggers=_list({"oneOf": [_KAFKA_TRIGGER, _CPU_TRIGGER]}),
    advanced=_only(
        restoreToOriginalReplicaCount={"type": "boolean"},
        horizontalPodAutoscalerConfig=_only(name=_NAME, behavior=_only(scaleUp=_RULES, scaleDown=_RULES)),
    ),
)

_TRIGGER_AUTHENTICATION = _only(
    secretTargetRef=_list(_only(("parameter", "name", "key"), parameter=_NAME, name=_NAME, key=_NAME))
)

_POD_MONITOR = _only(
    ("selector", "podMetricsEndpoints"),
    selector=_only(matchLabels={"type": "object"}),
    podTargetLabels=_list(_NAME),
    podMetricsEndpoints=_list(
        _only(port=_NAME, path=_NAME, interval={"type": "string", "pattern": r"^\d+(ms|s|m)$"}, scheme=_NAME)
    ),
)

SCHEMAS: dict[tuple[str, str], Schema] = {
    (api, kind): _object(api, kind, spec)
    for api, kind, spec in (
        ("keda.sh/v1alpha1", "ScaledObject", _SCALED_OBJECT),
        ("keda.sh/v1alpha1", "TriggerAuthentication", _TRIGGER_AUTHENTICATION),
        ("monitoring.coreos.com/v1", "PodMonitor", _POD_MONITOR),
    )
}
"""By apiVersion and kind."""
