//! From the AMQP library's many error types to one [`Cause`].

use std::sync::Arc;

use fe2o3_amqp::connection::{self, ConnectionStopReason, OpenError};
use fe2o3_amqp::link::{
    DetachError, IllegalLinkStateError, LinkStateError, ReceiverAttachError, RecvError, SendError,
    SenderAttachError, SessionStopReason,
};
use fe2o3_amqp::session::BeginError;
use fe2o3_amqp::transport;
use fe2o3_amqp_types::definitions::{self, ErrorCondition};
use serde_amqp::primitives::Symbol;

use crate::error::{Cause, Condition};

impl From<definitions::Error> for Cause {
    fn from(error: definitions::Error) -> Self {
        let symbol = match &error.condition {
            ErrorCondition::AmqpError(condition) => Symbol::from(condition),
            ErrorCondition::ConnectionError(condition) => Symbol::from(condition),
            ErrorCondition::SessionError(condition) => Symbol::from(condition),
            ErrorCondition::LinkError(condition) => Symbol::from(condition),
            ErrorCondition::Custom(symbol) => symbol.clone(),
        };
        Self::Broker {
            condition: Condition::new(symbol.0),
            description: error.description.unwrap_or_default(),
        }
    }
}

impl From<transport::Error> for Cause {
    fn from(error: transport::Error) -> Self {
        match error {
            transport::Error::Io(error) => Self::Io(Arc::new(error)),
            transport::Error::IdleTimeoutElapsed => Self::PeerSilent,
            other => Self::Protocol(other.to_string()),
        }
    }
}

impl From<OpenError> for Cause {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Io(error) => Self::Io(Arc::new(error)),
            OpenError::SaslError { code, .. } => Self::Sasl(format!("{code:?}")),
            OpenError::TransportError(error) => error.into(),
            OpenError::RemoteClosed => Self::Disconnected,
            OpenError::RemoteClosedWithError(error) => error.into(),
            other => Self::Protocol(other.to_string()),
        }
    }
}

impl From<connection::Error> for Cause {
    fn from(error: connection::Error) -> Self {
        match error {
            connection::Error::TransportError(error) => error.into(),
            // The library's word for a peer that ends the stream without a close.
            connection::Error::RemoteClosed | connection::Error::IllegalState => Self::Disconnected,
            connection::Error::RemoteClosedWithError(error) => error.into(),
            other => Self::Protocol(other.to_string()),
        }
    }
}

impl From<ConnectionStopReason> for Cause {
    fn from(reason: ConnectionStopReason) -> Self {
        match reason {
            ConnectionStopReason::Closed | ConnectionStopReason::RemoteClosed => Self::Disconnected,
            ConnectionStopReason::ClosedWithError(error)
            | ConnectionStopReason::RemoteClosedWithError(error) => error.into(),
        }
    }
}

impl From<SessionStopReason> for Cause {
    fn from(reason: SessionStopReason) -> Self {
        match reason {
            SessionStopReason::Ended | SessionStopReason::RemoteEnded => Self::SessionEnded,
            SessionStopReason::EndedWithError(error) | SessionStopReason::RemoteEndedWithError(error) => {
                error.into()
            }
            SessionStopReason::ConnectionStopped(reason) => reason.into(),
        }
    }
}

impl From<BeginError> for Cause {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::ConnectionStopped(reason) => reason.into(),
            BeginError::RemoteEnded => Self::SessionEnded,
            BeginError::RemoteEndedWithError(error) => error.into(),
            other => Self::Protocol(other.to_string()),
        }
    }
}

impl From<SenderAttachError> for Cause {
    fn from(error: SenderAttachError) -> Self {
        match error {
            SenderAttachError::SessionStopped(reason) => reason.into(),
            SenderAttachError::RemoteClosedWithError(error) => error.into(),
            SenderAttachError::SessionNotMapped => Self::SessionEnded,
            other => Self::Protocol(other.to_string()),
        }
    }
}

impl From<ReceiverAttachError> for Cause {
    fn from(error: ReceiverAttachError) -> Self {
        match error {
            ReceiverAttachError::SessionStopped(reason) => reason.into(),
            ReceiverAttachError::RemoteClosedWithError(error) => error.into(),
            ReceiverAttachError::SessionNotMapped => Self::SessionEnded,
            other => Self::Protocol(other.to_string()),
        }
    }
}

impl From<LinkStateError> for Cause {
    fn from(error: LinkStateError) -> Self {
        match error {
            LinkStateError::SessionStopped(reason) => reason.into(),
            LinkStateError::RemoteDetachedWithError(error) | LinkStateError::RemoteClosedWithError(error) => {
                error.into()
            }
            // The library reports a detach that it cannot explain by the last two.
            LinkStateError::RemoteDetached
            | LinkStateError::RemoteClosed
            | LinkStateError::IllegalState
            | LinkStateError::ExpectImmediateDetach => Self::Detached,
        }
    }
}

impl From<DetachError> for Cause {
    fn from(error: DetachError) -> Self {
        LinkStateError::from(error).into()
    }
}

impl From<IllegalLinkStateError> for Cause {
    fn from(error: IllegalLinkStateError) -> Self {
        LinkStateError::from(error).into()
    }
}

impl From<SendError> for Cause {
    fn from(error: SendError) -> Self {
        match error {
            SendError::LinkStateError(error) => error.into(),
            SendError::Detached(error) => error.into(),
            other => Self::Protocol(other.to_string()),
        }
    }
}

impl From<RecvError> for Cause {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::LinkStateError(error) => error.into(),
            other => Self::Protocol(other.to_string()),
        }
    }
}
