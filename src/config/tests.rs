//! The configuration file: defaults, refusals, and that the example says the truth.

use super::*;

const EXAMPLE: &str = include_str!("../../atoll.example.toml");

/// Marks an example value of an option that has no default.
const NO_DEFAULT: &str = "# e.g. ";

/// The example with every default uncommented, and the example values too if asked for.
fn uncommented(with_examples: bool) -> String {
    let line = |line: &str| {
        let option = match line.strip_prefix(NO_DEFAULT) {
            Some(option) if with_examples => option,
            Some(_) => "",
            None => line
                .strip_prefix('#')
                .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
                .unwrap_or(line),
        };
        format!("{option}\n")
    };
    EXAMPLE.lines().map(line).collect()
}

/// Names of the options of a section ("" for the top), as the reader itself knows them.
fn known_options(section: &str) -> Vec<String> {
    let header = if section.is_empty() {
        String::new()
    } else {
        format!("[{section}]\n")
    };
    let error = toml::from_str::<Config>(&format!("{header}zzzzzzzz = 1\n")).unwrap_err();
    error
        .message()
        .split('`')
        .skip(3)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_defaults_in_the_example_are_the_defaults() {
    assert_eq!(Config::parse(EXAMPLE).unwrap(), Config::default());
    let text = uncommented(false);
    assert_eq!(Config::parse(&text).unwrap(), Config::default());
    for line in text.lines().filter(|line| line.starts_with('#')) {
        let words: Vec<&str> = line
            .trim_start_matches('#')
            .split_whitespace()
            .take(2)
            .collect();
        assert_ne!(
            words.get(1),
            Some(&"="),
            "an option that is still commented out: {line}"
        );
    }
}

#[test]
fn the_example_lists_every_option_and_no_other() {
    let table: toml::Table = uncommented(true).parse().unwrap();
    let top = known_options("");
    assert!(top.len() >= 7, "{top:?}");
    for name in &top {
        match table
            .get(name)
            .unwrap_or_else(|| panic!("the example lacks {name}"))
        {
            toml::Value::Table(section) => {
                for option in known_options(name) {
                    assert!(
                        section.contains_key(&option),
                        "the example lacks {name}.{option}"
                    );
                }
            }
            _ => assert!(known_options(name).is_empty() || name == "data" || name == "io_timeout"),
        }
    }
    Config::parse(&uncommented(true)).unwrap().check().unwrap();
}

#[test]
fn the_defaults_pass_the_checks() {
    let config = Config::load(None, Overrides::default()).unwrap();
    assert_eq!(config.admin_socket(), Path::new("data/admin.sock"));
    assert_eq!(config.metadata_path(), Path::new("data/meta"));
}

#[test]
fn a_configuration_survives_writing_and_reading() {
    let config = Config::parse(&uncommented(true)).unwrap();
    assert_eq!(
        Config::parse(&toml::to_string(&config).unwrap()).unwrap(),
        config
    );
}

#[test]
fn an_unknown_option_is_refused_by_name_and_line_with_the_nearest() {
    for (text, message, hint) in [
        (
            "dat = \"x\"\n",
            "line 1: unknown option \"dat\"",
            "did you mean \"data\"?",
        ),
        (
            "[reactor]\ncores = [0]\nspinn = \"1us\"\n",
            "line 3: unknown option \"reactor.spinn\"",
            "did you mean \"spin\"?",
        ),
        (
            "[reactr]\ncores = [0]\n",
            "line 1: unknown option \"reactr\"",
            "did you mean \"reactor\"?",
        ),
        (
            "[iscsi]\npassword = 1\n",
            "line 2: unknown option \"iscsi.password\"",
            "known here: listen, advertise,",
        ),
        (
            "[iscsi]\ninsecure_no_auth = true\n",
            "line 2: unknown option \"iscsi.insecure_no_auth\"",
            "known here:",
        ),
    ] {
        let error = Config::parse(text).unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (ErrorKind::Invalid, message)
        );
        assert!(
            error.hint.as_deref().unwrap().starts_with(hint),
            "{error:?}"
        );
    }
}

#[test]
fn wrong_values_are_refused_with_their_line() {
    for (text, part) in [
        ("data = 1\n", "line 1:"),
        ("\n[reactor]\npoll = \"sometimes\"\n", "line 3:"),
        ("[reactor]\nspin = 50\n", "with its unit"),
        ("[reactor]\nspin = \"50\"\n", "not a length of time"),
        ("[reactor]\nbuffer_memory = \"1X\"\n", "not a size"),
        ("[reactor]\nbuffer_memory = true\n", "a size must be"),
        ("[reactor]\ncores = [-1]\n", "line 2:"),
        ("[iscsi]\nlisten = \"localhost\"\n", "line 2:"),
        (
            "[iscsi]\nadvertise = \"0.0.0.0\"\n",
            "nothing that an initiator",
        ),
        ("[iscsi]\nadvertise = \"x:1\"\n", "is not an address"),
        ("[gc]\nmax_iops = -1\n", "line 2:"),
        ("[gc]\nfill = \"yes\"\n", "line 2:"),
        ("[reactor\n", "line 1:"),
        ("data = \"a\"\ndata = \"b\"\n", "line 2:"),
    ] {
        let error = Config::parse(text).unwrap_err();
        assert!(error.message.contains(part), "{text}: {error}");
        assert!(!error.message.contains('\n'), "{error:?}");
    }
}

#[test]
fn values_out_of_range_are_refused_by_option() {
    for (text, option) in [
        ("data = \"\"", "data"),
        ("io_timeout = \"1ms\"", "io_timeout"),
        ("[reactor]\ncores = []", "reactor.cores"),
        ("[reactor]\ncores = [1, 0, 1]", "reactor.cores"),
        ("[reactor]\nspin = \"2s\"", "reactor.spin"),
        ("[reactor]\nbuffer_memory = 4096", "reactor.buffer_memory"),
        ("[iscsi]\nqueue_depth = 0", "iscsi.queue_depth"),
        ("[iscsi]\nmax_sessions = 0", "iscsi.max_sessions"),
        ("[iscsi]\nmax_sessions = 65536", "iscsi.max_sessions"),
        ("[iscsi]\ncommand_memory = \"8M\"", "iscsi.command_memory"),
        ("[iscsi]\nlow_space = 51", "iscsi.low_space"),
        ("[iscsi]\nnop_timeout = \"0s\"", "iscsi.nop_timeout"),
        ("[iscsi]\nnop_interval = \"2h\"", "iscsi.nop_interval"),
        ("[iscsi]\nlogin_timeout = \"0s\"", "iscsi.login_timeout"),
        ("[metadata]\npage_memory = 0", "metadata.page_memory"),
        ("[gc]\nmax_iops = 10000001", "gc.max_iops"),
        ("[log]\nlevel = \"atoll=loud\"", "log.level"),
        ("[log]\nlevel = \"warning\"", "log.level"),
        ("[log]\nlevel = \"info,loud\"", "log.level"),
        ("[log]\nlevel = \"\"", "log.level"),
    ] {
        let error = Config::parse(text).unwrap().check().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(
            error.message.starts_with(&format!("{option}: ")),
            "{text}: {error}"
        );
    }
}

#[test]
fn the_background_is_as_fast_as_the_mapper_has_it_unless_configured_and_0_is_no_limit() {
    let below = atoll_mapper::GcConfig::default();
    let gc = Config::default().gc;
    assert_eq!((gc.max_iops, gc.fill), (below.max_iops, below.fill));
    let config = Config::parse("[gc]\nmax_iops = 0\nfill = false\n").unwrap();
    config.check().unwrap();
    let gc = config.gc;
    assert_eq!((gc.max_iops, gc.fill), (0, false));
}

#[test]
fn only_loopback_is_served_without_access_control() {
    for (listen, loopback) in [
        ("127.0.0.1:3260", true),
        ("127.1.2.3:0", true),
        ("[::1]:3260", true),
        ("[::ffff:127.0.0.1]:3260", true),
        ("0.0.0.0:3260", false),
        ("[::]:3260", false),
        ("192.0.2.1:3260", false),
    ] {
        let load = |insecure_no_auth| {
            Config::load(
                None,
                Overrides {
                    iscsi: Some(listen.parse().unwrap()),
                    insecure_no_auth,
                    ..Overrides::default()
                },
            )
        };
        load(true).unwrap();
        match load(false) {
            Ok(_) => assert!(loopback, "{listen}"),
            Err(error) => {
                assert!(!loopback, "{listen}");
                assert_eq!(error.kind, ErrorKind::Refused);
                assert!(error.hint.unwrap().contains("--insecure-no-auth"));
            }
        }
    }
}

#[test]
fn the_command_line_overrides_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("atoll.toml");
    std::fs::write(&file, "data = \"a\"\n[reactor]\ncores = [3]\n[iscsi]\nlisten = \"127.0.0.1:1\"\nadvertise = \"192.0.2.1\"\n[admin]\nsocket = \"s\"\n").unwrap();
    let from_file = Config::load(Some(&file), Overrides::default()).unwrap();
    assert_eq!(
        (from_file.data.to_str(), from_file.reactor.cores.as_slice()),
        (Some("a"), &[3][..])
    );
    assert_eq!(from_file.admin_socket(), Path::new("s"));
    let overrides = Overrides {
        data: Some("b".into()),
        cores: Some(vec![0, 1]),
        iscsi: Some("127.0.0.1:0".parse().unwrap()),
        advertise: Some("192.0.2.2:5".parse().unwrap()),
        admin: Some("t".into()),
        insecure_no_auth: true,
    };
    let both = Config::load(Some(&file), overrides).unwrap();
    assert_eq!(both.data, Path::new("b"));
    assert_eq!(both.reactor.cores, [0, 1]);
    assert_eq!(both.iscsi.listen.port(), 0);
    assert_eq!(both.iscsi.advertise.unwrap().port, Some(5));
    assert_eq!(both.admin_socket(), Path::new("t"));
    assert!(both.iscsi.insecure_no_auth);
}

#[test]
fn a_file_that_is_missing_is_not_found_and_a_wrong_one_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("none.toml");
    assert_eq!(
        Config::load(Some(&file), Overrides::default())
            .unwrap_err()
            .kind,
        ErrorKind::NotFound
    );
    std::fs::write(&file, "x = 1").unwrap();
    let error = Config::load(Some(&file), Overrides::default()).unwrap_err();
    assert!(error.message.contains("none.toml: line 1: "), "{error}");
}

#[test]
fn an_advertised_address_has_the_bound_port_unless_it_names_one() {
    let bound = "127.0.0.1:4000".parse().unwrap();
    for (text, address) in [
        ("192.0.2.1", "192.0.2.1:4000"),
        ("192.0.2.1:5", "192.0.2.1:5"),
        ("2001:db8::1", "[2001:db8::1]:4000"),
        ("[2001:db8::1]:5", "[2001:db8::1]:5"),
    ] {
        let advertise: Advertise = text.parse().unwrap();
        assert_eq!(advertise.address(bound).to_string(), address);
        assert_eq!(String::from(advertise), text);
    }
}
