//! The console as the back end of `log`.

use super::say;

/// `tagvisor: text`, with the level where it is not `info`.
struct Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        match record.level() {
            log::Level::Error => say(format_args!("error: {}", record.args())),
            log::Level::Warn => say(format_args!("warn: {}", record.args())),
            log::Level::Info => say(*record.args()),
            log::Level::Debug | log::Level::Trace => say(format_args!("debug: {}", record.args())),
        }
    }

    fn flush(&self) {}
}

/// Makes the console the back end of `log`.
pub(crate) fn init_log(level: log::LevelFilter) {
    static LOGGER: Logger = Logger;
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(level);
}
