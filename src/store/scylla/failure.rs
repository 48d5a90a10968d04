//! What an error of the driver means to us: wait and repeat, or stop and ask an operator.
//!
//! Unavailable is the default: an error that is not known to be final may heal, and every call may be repeated.

use std::fmt::Display;

use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError,
    MetadataError, NewSessionError, NextPageError, NextRowError, PagerExecutionError, PrepareError,
    RequestAttemptError, RequestError,
};

use crate::store::StoreError;

/// A session that could not be opened.
pub(in crate::store) fn connect_error(error: &NewSessionError, nodes: &[String]) -> StoreError {
    let refusal = match error {
        NewSessionError::EmptyKnownNodesList => {
            Some("store.scylla.nodes is empty; name at least one node as host:port".to_owned())
        }
        NewSessionError::IllegalConfig(what) => {
            Some(format!("the driver refuses the settings of store.scylla: {what}"))
        }
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(pool)) => pool_refusal(pool),
        _ => None,
    };
    let nodes = nodes.join(", ");
    match refusal {
        Some(text) => StoreError::Refused(text),
        None => StoreError::Unavailable(format!("cannot connect to {nodes}: {error}")),
    }
}

/// A request that failed, with all the driver's own attempts.
pub(in crate::store) fn request_error(error: &ExecutionError) -> StoreError {
    let refusal = match error {
        ExecutionError::BadQuery(bad) => Some(format!("the database cannot take these values: {bad}")),
        ExecutionError::LastAttemptError(attempt) => attempt_refusal(attempt),
        ExecutionError::PrepareError(prepare) => prepare_refusal(prepare),
        ExecutionError::ConnectionPoolError(pool) => pool_refusal(pool),
        _ => None,
    };
    decide(refusal, error)
}

/// A statement that could not be prepared.
pub(in crate::store) fn prepare_error(error: &PrepareError) -> StoreError {
    decide(prepare_refusal(error), error)
}

/// A read in pages that could not begin.
pub(in crate::store) fn pager_error(error: &PagerExecutionError) -> StoreError {
    let refusal = match error {
        PagerExecutionError::PrepareError(prepare) => prepare_refusal(prepare),
        PagerExecutionError::SerializationError(bad) => {
            Some(format!("the database cannot take these values: {bad}"))
        }
        PagerExecutionError::NextPageError(page) => page_refusal(page),
        _ => None,
    };
    decide(refusal, error)
}

/// A read in pages that could not go on.
pub(in crate::store) fn page_error(error: &NextRowError) -> StoreError {
    let refusal = match error {
        NextRowError::NextPageError(page) => page_refusal(page),
        NextRowError::RowDeserializationError(what) => return unreadable(what),
        _ => None,
    };
    decide(refusal, error)
}

/// An answer whose columns are not what our tables have.
pub(in crate::store) fn unreadable(what: &impl Display) -> StoreError {
    StoreError::Refused(format!(
        "the database's answer does not fit this version's tables ({what}); run `campaignd store migrate` and check store.scylla.keyspace"
    ))
}

fn decide(refusal: Option<String>, error: &impl Display) -> StoreError {
    match refusal {
        Some(text) => StoreError::Refused(text),
        None => StoreError::Unavailable(error.to_string()),
    }
}

fn page_refusal(error: &NextPageError) -> Option<String> {
    match error {
        NextPageError::RequestFailure(RequestError::LastAttemptError(attempt)) => attempt_refusal(attempt),
        NextPageError::RequestFailure(RequestError::ConnectionPoolError(pool)) => pool_refusal(pool),
        _ => None,
    }
}

fn prepare_refusal(error: &PrepareError) -> Option<String> {
    match error {
        PrepareError::AllAttemptsFailed { first_attempt } => attempt_refusal(first_attempt),
        PrepareError::ConnectionPoolError(pool) => pool_refusal(pool),
        _ => None,
    }
}

fn pool_refusal(error: &ConnectionPoolError) -> Option<String> {
    let ConnectionPoolError::Broken { last_connection_error } = error else { return None };
    let ConnectionError::ConnectionSetupRequestError(setup) = last_connection_error else { return None };
    match setup.get_error() {
        ConnectionSetupRequestErrorKind::DbError(error, reason) => db_refusal(error, reason),
        ConnectionSetupRequestErrorKind::MissingAuthentication => {
            Some("the database asks for a user; set store.scylla.user and store.scylla.password".to_owned())
        }
        _ => None,
    }
}

fn attempt_refusal(error: &RequestAttemptError) -> Option<String> {
    match error {
        RequestAttemptError::DbError(error, reason) => db_refusal(error, reason),
        RequestAttemptError::SerializationError(_) | RequestAttemptError::CqlRequestSerialization(_) => {
            Some(format!("the database cannot take these values: {error}"))
        }
        _ => None,
    }
}

fn db_refusal(error: &DbError, reason: &str) -> Option<String> {
    match error {
        DbError::AuthenticationError => Some(format!(
            "the database does not accept the user ({reason}); check store.scylla.user and store.scylla.password"
        )),
        DbError::Unauthorized => Some(format!(
            "the database user may not do this ({reason}); grant it SELECT and MODIFY on the keyspace, and CREATE for `campaignd store migrate`"
        )),
        DbError::Invalid | DbError::ConfigError if is_missing(reason) => {
            Some(format!("keyspace or table missing ({reason}); run `campaignd store migrate`"))
        }
        DbError::Invalid | DbError::ConfigError | DbError::SyntaxError | DbError::AlreadyExists { .. } => {
            Some(format!("the database refuses the statement: {reason}"))
        }
        _ => None,
    }
}

/// The words for a missing keyspace, table or column in either database.
fn is_missing(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["does not exist", "unconfigured table", "undefined column", "unknown identifier"]
        .iter()
        .any(|words| reason.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn db(error: DbError, reason: &str) -> StoreError {
        request_error(&ExecutionError::LastAttemptError(RequestAttemptError::DbError(
            error,
            reason.to_owned(),
        )))
    }

    #[test]
    fn a_time_out_may_be_repeated() {
        let slow = ExecutionError::RequestTimeout(std::time::Duration::from_secs(1));
        assert!(matches!(request_error(&slow), StoreError::Unavailable(_)));
        for error in [DbError::Overloaded, DbError::IsBootstrapping, DbError::ServerError] {
            assert!(matches!(db(error, ""), StoreError::Unavailable(_)));
        }
    }

    #[test]
    fn a_missing_table_says_how_to_make_it() {
        for reason in
            ["unconfigured table users", "Keyspace campaignd does not exist", "table users does not exist"]
        {
            assert!(db(DbError::Invalid, reason).to_string().contains("campaignd store migrate"), "{reason}");
        }
    }

    #[test]
    fn a_wrong_password_names_the_settings() {
        let text = db(DbError::AuthenticationError, "bad credentials").to_string();
        assert!(text.contains("store.scylla.user") && text.contains("bad credentials"), "{text}");
        assert!(matches!(db(DbError::Unauthorized, "no"), StoreError::Refused(_)));
    }
}
