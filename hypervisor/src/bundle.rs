//! The bundle: the cpio archive that the machine got as its initrd. It stays where the loader put
//! it, read-only, because every start of a VM copies from it.

use manifest::cpio::Archive;
use spin::Once;

static BUNDLE: Once<Archive<'static>> = Once::new();

/// Publishes the archive, once.
pub(crate) fn publish(archive: Archive<'static>) -> &'static Archive<'static> {
    BUNDLE.call_once(|| archive)
}

/// A file's content.
pub(crate) fn file(name: &str) -> Option<&'static [u8]> {
    BUNDLE.get()?.file(name).ok()
}
