//! Writes the bindings from the installed headers (libiscsi-dev, libclang).

use std::env;
use std::path::PathBuf;

const HEADER: &str =
    "#include <stdint.h>\n#include <iscsi/iscsi.h>\n#include <iscsi/scsi-lowlevel.h>\n";

fn main() {
    println!("cargo:rustc-link-lib=iscsi");
    println!("cargo:rerun-if-changed=build.rs");
    let bindings = bindgen::Builder::default()
        .header_contents("libiscsi.h", HEADER)
        .allowlist_function("(iscsi|scsi)_.*")
        .allowlist_type("(iscsi|scsi)_.*|unmap_list")
        .allowlist_var("(ISCSI|SCSI)_.*")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .layout_tests(false)
        .generate()
        .unwrap_or_else(|error| panic!("libiscsi's headers (install libiscsi-dev libclang1-14 libclang-common-14-dev): {error}"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("bindings.rs");
    bindings
        .write_to_file(&out)
        .unwrap_or_else(|error| panic!("{}: {error}", out.display()));
}
