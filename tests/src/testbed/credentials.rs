//! Units added to the appliance from outside: whoever starts a virtual machine may hand its systemd credentials.
//!
//! The image takes none by itself; with Secure Boot off, the machine's firmware may say otherwise.

use data_encoding::BASE64;

/// Words for the appliance's kernel command line, to look into it: `systemd.show_status=yes`, for one.
const EXTRA_WORDS: &str = "CRN_TESTBED_CMDLINE";

/// QEMU's arguments for credentials by name: strings in the machine's SMBIOS tables.
#[must_use]
pub fn qemu_arguments(credentials: &[(&str, String)]) -> Vec<String> {
    let extra = std::env::var(EXTRA_WORDS).unwrap_or_default();
    // Read by systemd's boot stub when Secure Boot is off.
    let allow = format!(
        "type=11,value=io.systemd.stub.kernel-cmdline-extra=systemd.import_credentials=yes {extra}"
    );
    let mut arguments = vec!["-smbios".to_owned(), allow];
    for (name, text) in credentials {
        arguments.push("-smbios".to_owned());
        arguments.push(format!(
            "type=11,value=io.systemd.credential.binary:{name}={}",
            BASE64.encode(text.as_bytes())
        ));
    }
    arguments
}
