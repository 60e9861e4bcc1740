//! The rights that each program's statements need: what the migrations grant to its role, and what doctor
//! asks for. A test compares the two both ways.

use std::fmt;

/// A program with a role of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The REST service.
    Api,
    /// The operator.
    Operator,
    /// The program in the Jobs.
    Exporter,
}

/// A privilege on a table, or on columns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The table.
    pub relation: &'static str,
    /// `SELECT`, `INSERT`, `UPDATE` or `DELETE`.
    pub privilege: &'static str,
    /// The columns; none for the table as a whole.
    pub columns: &'static [&'static str],
}

impl Need {
    /// The columns; for the table as a whole one that has no name.
    pub(super) fn columns_or_table(&self) -> &'static [&'static str] {
        if self.columns.is_empty() {
            &[""]
        } else {
            self.columns
        }
    }
}

/// As in a GRANT, between that word and TO.
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.privilege)?;
        if !self.columns.is_empty() {
            write!(f, " ({})", self.columns.join(", "))?;
        }
        write!(f, " ON {}", self.relation)
    }
}

impl Program {
    /// The group role that the migrations make for it.
    pub const fn role(self) -> &'static str {
        match self {
            Self::Api => "popularity_reports_api",
            Self::Operator => "popularity_reports_operator",
            Self::Exporter => "popularity_reports_exporter",
        }
    }

    /// What its statements need in the reports' database.
    pub const fn needs(self) -> &'static [Need] {
        match self {
            Self::Api => API,
            Self::Operator => OPERATOR,
            Self::Exporter => EXPORTER,
        }
    }
}

const fn need(privilege: &'static str, relation: &'static str, columns: &'static [&'static str]) -> Need {
    Need {
        relation,
        privilege,
        columns,
    }
}

const REPORTS: &str = "public.reports";
const OUTBOX: &str = "public.outbox_messages";

/// Read by all three.
const ROW: Need = need(
    "SELECT",
    REPORTS,
    &[
        "id",
        "requested_by",
        "parameters",
        "state",
        "attempts",
        "artifact_container",
        "artifact_blob",
        "artifact_bytes",
        "artifact_rows",
        "artifact_sha256",
        "artifact_content_type",
        "artifact_schema",
        "data_as_of",
        "failure_reason",
        "failure_message",
        "cr_namespace",
        "cr_name",
        "cr_uid",
        "cr_deleted_at",
        "traceparent",
        "created_at",
        "relayed_at",
        "dispatched_at",
        "started_at",
        "finished_at",
        "expires_at",
        "updated_at",
    ],
);
const ENQUEUE: Need = need(
    "INSERT",
    OUTBOX,
    &[
        "id",
        "aggregatetype",
        "aggregateid",
        "type",
        "payload",
        "traceparent",
        "created_at",
        "available_at",
    ],
);

const API: &[Need] = &[
    ROW,
    need("SELECT", REPORTS, &["idempotency_key", "idempotency_fingerprint"]),
    need(
        "INSERT",
        REPORTS,
        &[
            "id",
            "requested_by",
            "parameters",
            "idempotency_key",
            "idempotency_fingerprint",
            "traceparent",
            "cr_namespace",
            "cr_name",
            "created_at",
            "updated_at",
            "expires_at",
        ],
    ),
    ENQUEUE,
];

const OPERATOR: &[Need] = &[
    ROW,
    need("SELECT", REPORTS, &["file_retained"]),
    need(
        "INSERT",
        REPORTS,
        &[
            "id",
            "parameters",
            "traceparent",
            "cr_namespace",
            "cr_name",
            "cr_uid",
            "created_at",
            "updated_at",
            "expires_at",
        ],
    ),
    need(
        "UPDATE",
        REPORTS,
        &[
            "state",
            "failure_reason",
            "failure_message",
            "cr_namespace",
            "cr_name",
            "cr_uid",
            "cr_deleted_at",
            "file_retained",
            "relayed_at",
            "dispatched_at",
            "finished_at",
            "updated_at",
        ],
    ),
    ENQUEUE,
    need(
        "SELECT",
        OUTBOX,
        &[
            "id",
            "aggregateid",
            "type",
            "payload",
            "traceparent",
            "created_at",
            "available_at",
            "attempts",
            "processed_at",
        ],
    ),
    need(
        "UPDATE",
        OUTBOX,
        &["attempts", "last_error", "available_at", "processed_at"],
    ),
    need("DELETE", OUTBOX, &[]),
];

const EXPORTER: &[Need] = &[
    ROW,
    need(
        "UPDATE",
        REPORTS,
        &[
            "state",
            "attempts",
            "artifact_container",
            "artifact_blob",
            "artifact_bytes",
            "artifact_rows",
            "artifact_sha256",
            "artifact_content_type",
            "artifact_schema",
            "data_as_of",
            "started_at",
            "finished_at",
            "updated_at",
        ],
    ),
];
