//! Connection strings.
//!
//! <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-sas#shared-access-authorization-policies>

use std::str::FromStr;

use secrecy::SecretString;

use crate::settings::{Credential, Endpoint, Settings, Transport};

/// A parsed connection string:
/// `Endpoint=sb://HOST[:PORT]/;SharedAccessKeyName=NAME;SharedAccessKey=KEY[;EntityPath=QUEUE][;UseDevelopmentEmulator=true]`,
/// or `SharedAccessSignature=…` in place of name and key.
///
/// `UseDevelopmentEmulator=true` means plain TCP on port 5672. A port in the endpoint is honoured either way.
/// Its `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct ConnectionString {
    /// Where the broker is.
    pub endpoint: Endpoint,
    /// Key or signature.
    pub credential: Credential,
    /// The queue, when the string names one.
    pub entity_path: Option<String>,
}

/// Why a connection string is refused. Never quotes a value that may be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringError {
    /// A part is not `Name=value`.
    #[error("part {0} is not of the form Name=value")]
    NotAPair(usize),
    /// A part is given twice.
    #[error("{0} is given twice")]
    Repeated(&'static str),
    /// There is no endpoint.
    #[error("Endpoint is missing; expected Endpoint=sb://HOST/")]
    EndpointMissing,
    /// The endpoint is not `sb://HOST[:PORT][/]`.
    #[error("Endpoint must be of the form sb://HOST[:PORT]/")]
    EndpointMalformed,
    /// There is neither a key nor a signature.
    #[error("SharedAccessKeyName and SharedAccessKey, or SharedAccessSignature, are missing")]
    CredentialMissing,
    /// Only one of key and key name is there.
    #[error("SharedAccessKeyName and SharedAccessKey must be given together")]
    CredentialIncomplete,
    /// Both a key and a signature are there.
    #[error("give either SharedAccessKey or SharedAccessSignature, not both")]
    CredentialAmbiguous,
    /// The signature does not look like one.
    #[error("SharedAccessSignature must begin with \"SharedAccessSignature sr=\"")]
    SignatureMalformed,
    /// The emulator flag is something else than true or false.
    #[error("UseDevelopmentEmulator must be true or false")]
    EmulatorFlagMalformed,
}

impl ConnectionString {
    /// Settings with the defaults for times.
    pub fn into_settings(self) -> Settings {
        Settings::new(self.endpoint, self.credential)
    }
}

impl FromStr for ConnectionString {
    type Err = ConnectionStringError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut endpoint = None;
        let mut key_name = None;
        let mut key = None;
        let mut signature = None;
        let mut entity_path = None;
        let mut emulator = None;
        let parts = text.trim().split(';').map(str::trim).enumerate();
        for (place, part) in parts.filter(|(_, part)| !part.is_empty()) {
            let (name, value) = part
                .split_once('=')
                .ok_or(ConnectionStringError::NotAPair(place + 1))?;
            let (name, slot) = match name.trim().to_ascii_lowercase().as_str() {
                "endpoint" => ("Endpoint", &mut endpoint),
                "sharedaccesskeyname" => ("SharedAccessKeyName", &mut key_name),
                "sharedaccesskey" => ("SharedAccessKey", &mut key),
                "sharedaccesssignature" => ("SharedAccessSignature", &mut signature),
                "entitypath" => ("EntityPath", &mut entity_path),
                "usedevelopmentemulator" => ("UseDevelopmentEmulator", &mut emulator),
                // Other SDKs' options (TransportType, OperationTimeout …) do not concern this client.
                _ => continue,
            };
            if slot.replace(value.trim().to_owned()).is_some() {
                return Err(ConnectionStringError::Repeated(name));
            }
        }
        let transport = match emulator.as_deref().map(str::to_ascii_lowercase).as_deref() {
            Some("true") => Transport::Plain,
            Some("false") | None => Transport::Tls,
            Some(_) => return Err(ConnectionStringError::EmulatorFlagMalformed),
        };
        Ok(Self {
            endpoint: parse_endpoint(
                &endpoint.ok_or(ConnectionStringError::EndpointMissing)?,
                transport,
            )?,
            credential: parse_credential(key_name, key, signature)?,
            entity_path: entity_path.filter(|path| !path.is_empty()),
        })
    }
}

fn parse_endpoint(text: &str, transport: Transport) -> Result<Endpoint, ConnectionStringError> {
    let malformed = ConnectionStringError::EndpointMalformed;
    let (scheme, authority) = text.split_once("://").ok_or(malformed.clone())?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if !scheme.eq_ignore_ascii_case("sb") || authority.contains(['/', '@', '?', '#', ' ']) {
        return Err(malformed);
    }
    let (host, port) = match authority.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, ""))) => (host, None),
        Some(Some((host, rest))) => (host, Some(rest.strip_prefix(':').ok_or(malformed.clone())?)),
        Some(None) => return Err(malformed),
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return Err(malformed);
    }
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(malformed)?,
        None if transport == Transport::Plain => Endpoint::PLAIN_PORT,
        None => Endpoint::TLS_PORT,
    };
    Ok(Endpoint {
        host: host.to_owned(),
        port,
        transport,
    })
}

fn parse_credential(
    key_name: Option<String>,
    key: Option<String>,
    signature: Option<String>,
) -> Result<Credential, ConnectionStringError> {
    let non_empty = |value: Option<String>| value.filter(|value| !value.is_empty());
    match (non_empty(key_name), non_empty(key), non_empty(signature)) {
        (Some(name), Some(key), None) => Ok(Credential::SharedAccessKey {
            name,
            key: key.into(),
        }),
        (None, None, Some(signature)) if signature.starts_with("SharedAccessSignature sr=") => {
            Ok(Credential::SharedAccessSignature(SecretString::from(signature)))
        }
        (None, None, Some(_)) => Err(ConnectionStringError::SignatureMalformed),
        (_, _, Some(_)) => Err(ConnectionStringError::CredentialAmbiguous),
        (None, None, None) => Err(ConnectionStringError::CredentialMissing),
        (_, _, None) => Err(ConnectionStringError::CredentialIncomplete),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use secrecy::ExposeSecret;

    use super::*;

    fn parse(text: &str) -> Result<ConnectionString, ConnectionStringError> {
        text.parse()
    }

    #[rstest]
    #[case::azure(
        "Endpoint=sb://ns.servicebus.windows.net/;",
        "ns.servicebus.windows.net",
        5671,
        Transport::Tls
    )]
    #[case::no_slash(
        "Endpoint=sb://ns.servicebus.windows.net;",
        "ns.servicebus.windows.net",
        5671,
        Transport::Tls
    )]
    #[case::tls_port("Endpoint=sb://ns.example:5999/;", "ns.example", 5999, Transport::Tls)]
    #[case::emulator(
        "Endpoint=sb://localhost;UseDevelopmentEmulator=true;",
        "localhost",
        5672,
        Transport::Plain
    )]
    #[case::emulator_port(
        "Endpoint=sb://127.0.0.1:49152;UseDevelopmentEmulator=True;",
        "127.0.0.1",
        49152,
        Transport::Plain
    )]
    #[case::emulator_off(
        "Endpoint=sb://host;UseDevelopmentEmulator=false;",
        "host",
        5671,
        Transport::Tls
    )]
    #[case::ipv6(
        "Endpoint=sb://[::1]:5673/;UseDevelopmentEmulator=true;",
        "::1",
        5673,
        Transport::Plain
    )]
    #[case::any_case("ENDPOINT=SB://Host/;", "Host", 5671, Transport::Tls)]
    fn endpoint_is_understood(
        #[case] start: &str,
        #[case] host: &str,
        #[case] port: u16,
        #[case] transport: Transport,
    ) {
        let parsed = parse(&format!("{start}SharedAccessKeyName=n;SharedAccessKey=k")).unwrap();

        assert_eq!(
            parsed.endpoint,
            Endpoint {
                host: host.into(),
                port,
                transport
            }
        );
    }

    #[test]
    fn key_keeps_its_equals_signs_and_entity_path_is_read() {
        let parsed = parse(
            "Endpoint=sb://h/;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=abc+/==;EntityPath=report-requests",
        )
        .unwrap();

        assert_eq!(parsed.entity_path.as_deref(), Some("report-requests"));
        let Credential::SharedAccessKey { name, key } = parsed.credential else {
            panic!("not a key");
        };
        assert_eq!(name, "RootManageSharedAccessKey");
        assert_eq!(key.expose_secret(), "abc+/==");
    }

    #[test]
    fn signature_stands_in_place_of_the_key() {
        let parsed =
            parse("Endpoint=sb://h/;SharedAccessSignature=SharedAccessSignature sr=a&sig=b%3D&se=1&skn=n")
                .unwrap();

        let Credential::SharedAccessSignature(signature) = parsed.credential else {
            panic!("not a signature");
        };
        assert_eq!(
            signature.expose_secret(),
            "SharedAccessSignature sr=a&sig=b%3D&se=1&skn=n"
        );
    }

    #[rstest]
    #[case::empty("", ConnectionStringError::EndpointMissing)]
    #[case::not_a_pair("Endpoint=sb://h;nonsense", ConnectionStringError::NotAPair(2))]
    #[case::twice(
        "Endpoint=sb://h;endpoint=sb://i",
        ConnectionStringError::Repeated("Endpoint")
    )]
    #[case::https("Endpoint=https://h/", ConnectionStringError::EndpointMalformed)]
    #[case::no_scheme("Endpoint=h", ConnectionStringError::EndpointMalformed)]
    #[case::path("Endpoint=sb://h/q", ConnectionStringError::EndpointMalformed)]
    #[case::no_host("Endpoint=sb://:5672/", ConnectionStringError::EndpointMalformed)]
    #[case::port_too_big("Endpoint=sb://h:65536/", ConnectionStringError::EndpointMalformed)]
    #[case::port_zero("Endpoint=sb://h:0/", ConnectionStringError::EndpointMalformed)]
    #[case::no_credential("Endpoint=sb://h", ConnectionStringError::CredentialMissing)]
    #[case::key_alone(
        "Endpoint=sb://h;SharedAccessKey=k",
        ConnectionStringError::CredentialIncomplete
    )]
    #[case::empty_key(
        "Endpoint=sb://h;SharedAccessKeyName=n;SharedAccessKey=",
        ConnectionStringError::CredentialIncomplete
    )]
    #[case::both(
        "Endpoint=sb://h;SharedAccessKey=k;SharedAccessSignature=s",
        ConnectionStringError::CredentialAmbiguous
    )]
    #[case::signature(
        "Endpoint=sb://h;SharedAccessSignature=sig",
        ConnectionStringError::SignatureMalformed
    )]
    #[case::flag(
        "Endpoint=sb://h;SharedAccessKeyName=n;SharedAccessKey=k;UseDevelopmentEmulator=yes",
        ConnectionStringError::EmulatorFlagMalformed
    )]
    fn bad_strings_are_refused(#[case] text: &str, #[case] expected: ConnectionStringError) {
        assert_eq!(parse(text).unwrap_err(), expected);
    }

    #[test]
    fn debug_shows_no_secret() {
        let parsed = parse("Endpoint=sb://h;SharedAccessKeyName=n;SharedAccessKey=topsecret").unwrap();

        assert!(!format!("{parsed:?}").contains("topsecret"));
    }
}
