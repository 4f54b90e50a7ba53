//! The admin API over a real socket, against an engine of memory: statuses, bodies, limits.

mod snapshots;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::path::PathBuf;
use std::sync::Arc;

use utoipa::OpenApi;

use super::client::{Answered, Client};
use super::fake::FakeControl;
use super::routes::ApiDoc;
use super::server;
use super::socket::{self, AdminSocket};
use crate::api::*;
use crate::control::Control;
use crate::error::{ErrorKind, Result};
use crate::units::ByteSize;

/// A served fake engine; its thread ends when this is dropped.
pub struct Served {
    socket: AdminSocket,
    pub control: Arc<FakeControl>,
    pub dir: tempfile::TempDir,
    _end: tokio::sync::oneshot::Sender<()>,
}

impl Served {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut socket = AdminSocket::bind(&dir.path().join("admin.sock")).unwrap();
        let listener = socket.take_listener().unwrap();
        let control = Arc::new(FakeControl::new());
        let shared: Arc<dyn Control> = control.clone();
        let (end, ended) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    served = server::serve(listener, shared) => served.unwrap(),
                    _ = ended => {}
                }
            });
        });
        Self {
            socket,
            control,
            dir,
            _end: end,
        }
    }

    pub fn path(&self) -> PathBuf {
        self.socket.path().to_owned()
    }

    fn client(&self) -> Client {
        Client::new(self.path())
    }

    /// Sends bytes as they are and gives the status and the body of the answer.
    fn raw(&self, request: &str) -> (u16, String) {
        let mut stream = socket::connect(&self.path()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer
            .split(' ')
            .nth(1)
            .unwrap_or_else(|| panic!("{answer:?}"))
            .parse()
            .unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    fn http(&self, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
        let length = body.len();
        let (status, body) = self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        ));
        (
            status,
            serde_json::from_str(&body).unwrap_or_else(|e| panic!("{method} {path}: {e}: {body}")),
        )
    }
}

fn create(name: &str, mib: u64) -> CreateVolume {
    CreateVolume {
        name: name.parse().unwrap(),
        size: ByteSize::mib(mib),
        pool: default_pool(),
        block_size: BlockSize::B512,
        if_not_exists: false,
    }
}

#[test]
fn a_volume_lives_from_create_to_delete() {
    let served = Served::new();
    let client = served.client();
    let made: Answered<Volume> = client.post("/v1/volumes", &create("a", 1)).unwrap();
    assert!(made.created);
    let listed = || client.get::<VolumePage>("/v1/volumes").unwrap().volumes;
    assert_eq!(listed(), std::slice::from_ref(&made.value));
    let size = ResizeVolume {
        size: ByteSize::mib(2),
    };
    let resized: Answered<Volume> = client.post("/v1/volumes/a/resize", &size).unwrap();
    assert_eq!(resized.value.size, ByteSize::mib(2));
    let rename = RenameVolume {
        to: "b".parse().unwrap(),
    };
    let renamed: Answered<Volume> = client.post("/v1/volumes/a/rename", &rename).unwrap();
    assert_eq!(renamed.value.id, made.value.id);
    assert_eq!(
        client.get::<Volume>("/v1/volumes/b").unwrap(),
        renamed.value
    );
    assert!(client.delete::<Removed>("/v1/volumes/b").unwrap().removed);
    assert_eq!(listed(), []);
}

#[test]
fn creating_again_is_an_error_that_says_what_differs_unless_asked_otherwise() {
    let served = Served::new();
    let client = served.client();
    client
        .post::<Volume>("/v1/volumes", &create("a", 1))
        .unwrap();
    let again = |request: &CreateVolume| client.post::<Volume>("/v1/volumes", request);

    let error = again(&create("a", 1)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::AlreadyExists);
    assert!(error.hint.unwrap().contains("--if-not-exists"));

    let same = CreateVolume {
        if_not_exists: true,
        ..create("a", 1)
    };
    assert!(!again(&same).unwrap().created);
    let other = CreateVolume {
        if_not_exists: true,
        block_size: BlockSize::B4096,
        ..create("a", 2)
    };
    let error = again(&other).unwrap_err();
    assert_eq!(error.kind, ErrorKind::AlreadyExists);
    assert_eq!(
        error.hint.as_deref(),
        Some("it differs: size is 1M, asked for was 2M; block size is 512, asked for was 4096")
    );
}

#[test]
fn exporting_again_is_unchanged_and_differently_is_refused() {
    let served = Served::new();
    let client = served.client();
    client
        .post::<Volume>("/v1/volumes", &create("a", 1))
        .unwrap();
    let export = |read_only| {
        let request = AddExport {
            name: "a".parse().unwrap(),
            protocols: vec![Protocol::Iscsi],
            read_only,
        };
        client.post::<Export>("/v1/exports", &request)
    };
    let first = export(false).unwrap();
    assert!(first.created);
    assert_eq!(first.value.target, "iqn.2026-11.io.atoll:a");
    assert_eq!(
        export(false).unwrap(),
        Answered {
            created: false,
            value: first.value
        }
    );
    let error = export(true).unwrap_err();
    assert_eq!(error.kind, ErrorKind::AlreadyExists);
    assert_eq!(
        error.hint.as_deref(),
        Some("it is writable, asked for was read-only: remove the export first")
    );

    let error = client.delete::<Removed>("/v1/volumes/a").unwrap_err();
    assert_eq!(error.kind, ErrorKind::InUse);
    assert!(error.message.contains("iqn.2026-11.io.atoll:a"));
}

#[test]
fn removing_what_is_not_there_is_an_error_unless_asked_otherwise() {
    let served = Served::new();
    let client = served.client();
    for path in ["/v1/volumes/x", "/v1/exports/x", "/v1/pools/x"] {
        let error = client.delete::<Removed>(path).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound, "{path}");
        assert!(error.hint.unwrap().contains("--if-exists"));
        assert!(
            !client
                .delete::<Removed>(&format!("{path}?if_exists=true"))
                .unwrap()
                .removed,
            "{path}"
        );
    }
    let error = client
        .delete::<Removed>("/v1/pools/x?if_exist=true")
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
}

#[test]
fn renaming_twice_says_that_it_was_done() {
    let served = Served::new();
    let client = served.client();
    client
        .post::<Volume>("/v1/volumes", &create("a", 1))
        .unwrap();
    let rename = || {
        client.post::<Volume>(
            "/v1/volumes/a/rename",
            &RenameVolume {
                to: "b".parse().unwrap(),
            },
        )
    };
    rename().unwrap();
    let error = rename().unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.hint.unwrap().contains("renamed already"));
}

#[test]
fn a_pool_lives_from_add_to_remove_and_is_kept_while_used() {
    let served = Served::new();
    let client = served.client();
    let request = |if_not_exists, object_size| AddPool {
        name: "m".parse().unwrap(),
        pool_type: PoolType::Memory,
        path: None,
        object_size,
        if_not_exists,
    };
    let add = |request: AddPool| client.post::<Pool>("/v1/pools", &request);
    assert!(add(request(false, DEFAULT_OBJECT_SIZE)).unwrap().created);
    assert!(!add(request(true, DEFAULT_OBJECT_SIZE)).unwrap().created);
    assert_eq!(
        add(request(false, DEFAULT_OBJECT_SIZE)).unwrap_err().kind,
        ErrorKind::AlreadyExists
    );
    let error = add(request(true, MIN_OBJECT_SIZE)).unwrap_err();
    assert_eq!(
        error.hint.as_deref(),
        Some("it differs: object size is 4M, asked for was 64K")
    );
    assert_eq!(
        add(request(true, ByteSize::bytes(5))).unwrap_err().kind,
        ErrorKind::Invalid
    );

    let volume = CreateVolume {
        pool: "m".parse().unwrap(),
        ..create("a", 1)
    };
    client.post::<Volume>("/v1/volumes", &volume).unwrap();
    assert_eq!(
        client.delete::<Removed>("/v1/pools/m").unwrap_err().kind,
        ErrorKind::InUse
    );
    client.delete::<Removed>("/v1/volumes/a").unwrap();
    assert!(client.delete::<Removed>("/v1/pools/m").unwrap().removed);
    assert_eq!(client.get::<Vec<Pool>>("/v1/pools").unwrap().len(), 1);
    assert_eq!(
        client.get::<Pool>("/v1/pools/main").unwrap().pool_type,
        PoolType::File
    );
}

#[test]
fn status_and_stats_come_whole() {
    let served = Served::new();
    let client = served.client();
    client
        .post::<Volume>("/v1/volumes", &create("a", 1))
        .unwrap();
    assert_eq!(client.get::<Status>("/v1/status").unwrap().volumes, 1);
    let stats: Stats = client.get("/v1/stats").unwrap();
    assert_eq!(
        (stats.volumes[0].io.reads, stats.volumes[0].io.read_bytes),
        (2, 8192)
    );
}

#[test]
fn wrong_requests_get_an_error_of_the_api_with_its_status() {
    let served = Served::new();
    let long = format!("/v1/volumes/{}", "x".repeat(201));
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(server::MAX_REQUEST_BODY));
    for (method, path, body, status, kind) in [
        ("GET", "/", "", 404, "not_found"),
        ("GET", "/v1/volumes/none", "", 404, "not_found"),
        ("PUT", "/v1/volumes", "{}", 404, "not_found"),
        ("GET", "/v1/volumes/UPPER", "", 400, "invalid"),
        ("GET", "/v1/volumes/a%2Fb", "", 400, "invalid"),
        ("GET", "/v1/volumes/%FF", "", 400, "invalid"),
        ("DELETE", &long, "", 400, "invalid"),
        ("POST", "/v1/volumes", "", 400, "invalid"),
        ("POST", "/v1/volumes", "{", 400, "invalid"),
        ("POST", "/v1/volumes", r#"{"name":"a"}"#, 400, "invalid"),
        (
            "POST",
            "/v1/volumes",
            r#"{"name":"a","size":-1}"#,
            400,
            "invalid",
        ),
        (
            "POST",
            "/v1/volumes",
            r#"{"name":"a","size":1048577}"#,
            400,
            "invalid",
        ),
        (
            "POST",
            "/v1/volumes",
            r#"{"name":"A","size":1048576}"#,
            400,
            "invalid",
        ),
        (
            "POST",
            "/v1/volumes",
            r#"{"name":"a","size":1048576,"block_size":1024}"#,
            400,
            "invalid",
        ),
        (
            "POST",
            "/v1/volumes",
            r#"{"name":"a","size":1048576,"sise":1}"#,
            400,
            "invalid",
        ),
        (
            "POST",
            "/v1/volumes",
            r#"{"name":"a","size":1048576,"pool":"none"}"#,
            404,
            "not_found",
        ),
        ("POST", "/v1/volumes", &large, 400, "invalid"),
        (
            "POST",
            "/v1/volumes/none/resize",
            r#"{"size":1048576}"#,
            404,
            "not_found",
        ),
        (
            "POST",
            "/v1/volumes/none/resize",
            r#"{"size":1}"#,
            400,
            "invalid",
        ),
        ("GET", "/v1/volumes?limit=0", "", 400, "invalid"),
        ("GET", "/v1/volumes?limit=1001", "", 400, "invalid"),
        ("GET", "/v1/volumes?kind=tape", "", 400, "invalid"),
        ("GET", "/v1/volumes?after=A", "", 400, "invalid"),
        ("GET", "/v1/volumes?from=a", "", 400, "invalid"),
        ("GET", "/v1/tree?name=none", "", 404, "not_found"),
        ("GET", "/v1/tree?after=x", "", 400, "invalid"),
        ("GET", "/v1/tree?limit=10001", "", 400, "invalid"),
        (
            "POST",
            "/v1/volumes/none/snapshot",
            r#"{"snapshot":"s"}"#,
            404,
            "not_found",
        ),
        (
            "POST",
            "/v1/volumes/none/clone",
            r#"{"to":"c","size":1}"#,
            400,
            "invalid",
        ),
        (
            "POST",
            "/v1/snapshots",
            r#"{"name":"s","volumes":[]}"#,
            400,
            "invalid",
        ),
        (
            "POST",
            "/v1/volumes/none/protect",
            r#"{"protected":true}"#,
            404,
            "not_found",
        ),
        (
            "POST",
            "/v1/volumes/none/copy",
            r#"{"to":"c","from":-1}"#,
            400,
            "invalid",
        ),
        (
            "POST",
            "/v1/exports",
            r#"{"name":"none"}"#,
            404,
            "not_found",
        ),
        (
            "POST",
            "/v1/exports",
            r#"{"name":"none","protocols":[]}"#,
            400,
            "invalid",
        ),
        (
            "POST",
            "/v1/exports",
            r#"{"name":"none","protocols":["ftp"]}"#,
            400,
            "invalid",
        ),
        (
            "POST",
            "/v1/pools",
            r#"{"name":"a","type":"file"}"#,
            400,
            "invalid",
        ),
    ] {
        let (found, error) = served.http(method, path, body);
        assert_eq!(
            (found, error["kind"].as_str()),
            (status, Some(kind)),
            "{method} {path} {body:.80}: {error}"
        );
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty())
        );
    }
}

#[test]
fn bytes_that_are_no_http_end_that_connection_only() {
    let served = Served::new();
    assert_eq!(served.raw("\0\x01\x02\r\n\r\n").0, 400);
    assert_eq!(served.http("GET", "/v1/status", "").0, 200);
}

#[test]
fn every_name_that_the_rule_allows_can_be_asked_for() {
    let served = Served::new();
    let client = served.client();
    for name in [".", "..", "-", "_", "a.b-c_d", &"x".repeat(200)] {
        client
            .post::<Volume>("/v1/volumes", &create(name, 1))
            .unwrap();
        assert_eq!(
            client
                .get::<Volume>(&format!("/v1/volumes/{name}"))
                .unwrap()
                .name
                .as_str(),
            name
        );
        assert!(
            client
                .delete::<Removed>(&format!("/v1/volumes/{name}"))
                .unwrap()
                .removed
        );
    }
}

#[test]
fn the_description_is_served_and_every_operation_in_it_has_a_route() {
    let served = Served::new();
    let (status, served_doc) = served.http("GET", "/openapi.json", "");
    assert_eq!(status, 200);
    assert_eq!(served_doc, serde_json::to_value(ApiDoc::openapi()).unwrap());
    let mut operations = 0;
    for (path, item) in served_doc["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let path = path.replace("{name}", "none");
            let (_, answer) = served.http(&method.to_uppercase(), &path, "");
            let message = answer["message"].as_str().unwrap_or_default();
            assert!(
                !message.contains("no such resource") && !message.contains("this method"),
                "{method} {path}"
            );
            assert!(operation["responses"]["200"].is_object(), "{method} {path}");
            operations += 1;
        }
    }
    assert_eq!(operations, 33);
    for (name, schema) in served_doc["components"]["schemas"].as_object().unwrap() {
        assert!(schema.is_object(), "{name}");
    }
}

#[test]
fn more_connections_than_are_served_wait_their_turn() {
    let served = Served::new();
    let idle: Vec<_> = (0..server::MAX_CONNECTIONS)
        .map(|_| socket::connect(&served.path()).unwrap())
        .collect();
    let path = served.path();
    let waiting =
        std::thread::spawn(move || -> Result<Status> { Client::new(path).get("/v1/status") });
    drop(idle);
    waiting.join().unwrap().unwrap();
}

#[test]
fn a_daemon_that_is_not_there_is_unavailable_with_the_way_to_start_it() {
    let dir = tempfile::tempdir().unwrap();
    let error = Client::new(dir.path().join("admin.sock"))
        .get::<Status>("/v1/status")
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.hint.unwrap().contains("atoll serve"));
}
