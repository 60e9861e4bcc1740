//! The product's own programs, started in a test's world.

use std::net::SocketAddr;
use std::time::Duration;

use uuid::Uuid;

use crate::client::Application;
use crate::program::Program;
use crate::tokens::{self, Token};
use crate::until;
use crate::world::World;

/// The time that a program has to answer after its start.
const START: Duration = Duration::from_secs(20);

/// How a program of the product is to be started.
#[must_use]
pub struct Setup<'a> {
    world: &'a World,
    program: &'static str,
    name: String,
    environment: Vec<(String, String)>,
}

impl<'a> Setup<'a> {
    fn new(world: &'a World, program: &'static str) -> Self {
        let setup = Self {
            world,
            program,
            name: program.to_owned(),
            environment: Vec::new(),
        };
        setup
            .set(
                "KUBECONFIG",
                &world.cluster.kubeconfig_by_proxy.display().to_string(),
            )
            .set("REPORTS_NAMESPACE", &world.cluster.namespace)
            .set("REPORTS_DATABASE_MAX_CONNECTIONS", "6")
            .set("AZURE_STORAGE_CONNECTION_STRING", &world.platform.storage)
            .set("BLOB_CONTAINER", &world.container.name)
            .set("LOG_FORMAT", "text")
            .set("LOG", "info")
    }

    /// Another name in logs, where several of a kind run.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// A variable of its environment; the last value holds.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The process ends, as if killed, when it comes to this point.
    pub fn crash_at(self, point: &str) -> Self {
        self.set("FAILPOINTS", &format!("{point}=return"))
    }

    fn spawn(&self) -> Program {
        let program = self.world.platform.programs.join(self.program);
        Program::start(&program, &self.name, self.world.folder.path(), &self.environment)
    }
}

/// The REST service.
pub struct Api {
    /// Its process.
    pub program: Program,
    base: String,
}

impl Api {
    /// With the world's database, container and namespace.
    pub fn setup(world: &World) -> Setup<'_> {
        Setup::new(world, "api")
            .set("REPORTS_DATABASE_URL", world.database.api.as_str())
            .set("JWT_KEY", tokens::KEY)
            .set("API_LISTEN", &World::free_address().to_string())
    }

    /// An application of a new user.
    pub fn application(&self) -> Application {
        self.application_of(&tokens::a_user(Uuid::new_v4()))
    }

    /// An application with this token.
    pub fn application_of(&self, token: &Token) -> Application {
        Application::new(&self.base, token)
    }
}

impl Setup<'_> {
    /// Starts it as the REST service and waits until it answers.
    pub async fn start_api(self) -> Api {
        let address = self.value("API_LISTEN");
        let mut program = self.spawn();
        answers(&mut program, &address, "/_health/live").await;
        Api {
            program,
            base: format!("http://{address}"),
        }
    }

    /// Starts it as an operator and waits until it answers. It may be a standby.
    pub async fn start_operator(self) -> Operator {
        let address = self.value("HEALTH_LISTEN");
        let mut program = self.spawn();
        answers(&mut program, &address, "/_health/live").await;
        let health = address.parse().expect("HEALTH_LISTEN is an address");
        Operator { program, health }
    }

    fn value(&self, name: &str) -> String {
        let found = self.environment.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).expect("set by setup")
    }

    /// With another image for the exporter's Jobs.
    pub fn exporter_image(self, image: &str) -> Self {
        self.set("EXPORTER_IMAGE", image)
    }

    /// Exporters end, as if killed, when they come to this point; their image must be the one with
    /// crash points.
    pub fn exporter_crashes_at(self, point: &str) -> Self {
        let image = self.world.platform.exporter_failpoints_image.clone();
        self.exporter_image(&image)
            .set("EXPORTER_ENV", &format!("FAILPOINTS={point}=return"))
    }
}

/// An operator.
pub struct Operator {
    /// Its process.
    pub program: Program,
    /// Where it answers for its health.
    pub health: SocketAddr,
}

impl Operator {
    /// With the world's queue, database, container and namespace.
    pub fn setup(world: &World) -> Setup<'_> {
        Setup::new(world, "operator")
            .set("REPORTS_DATABASE_URL", world.database.operator.as_str())
            .set("HEALTH_LISTEN", &World::free_address().to_string())
            .set("SERVICEBUS_CONNECTION_STRING", &world.broker.connection_string())
            .set("EXPORTER_IMAGE", &world.platform.exporter_image)
            .set("EXPORTER_ENV_SECRET", crate::cluster::EXPORTER_SECRET)
    }
}

async fn answers(program: &mut Program, address: &str, path: &str) {
    let url = format!("http://{address}{path}");
    let answer = async || {
        assert!(
            program.is_running(),
            "it ended right after its start:\n{}",
            program.log()
        );
        let answer = reqwest::get(&url).await.ok()?;
        answer.status().is_success().then_some(())
    };
    until("the program answers", START, answer).await;
}
