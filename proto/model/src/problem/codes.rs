//! Every code there is, a hundred to each part of the grid. A new one takes the next free number of its part and a
//! page `docs/errors/Pnnnn.md`; a number is never given a second meaning.

use super::{Category, Code};

/// One line of the table.
pub struct Entry {
    pub code: Code,
    pub category: Category,
    pub title: &'static str,
}

macro_rules! codes {
    ($table:ident: $($name:ident = $number:literal $category:ident $title:literal;)*) => {
        $(#[doc = $title] pub const $name: Code = Code($number);)*
        static $table: &[Entry] = &[$(Entry { code: $name, category: Category::$category, title: $title }),*];
    };
}

/// All tables.
pub static ALL: &[&[Entry]] = &[WORDS, IDENTITY, GRID, AGENT, FORMAT, LINK, PEOPLE];

// P01xx: words and documents that people write.
codes! { WORDS:
    BAD_NAME = 101 Invalid "a name is not legal";
    BAD_VALUE = 102 Invalid "a value is not of the form or in the range it must be";
    TOO_LARGE = 103 Exhausted "an input is larger than its limit";
    BAD_SYNTAX = 110 Invalid "a document cannot be read as YAML";
    UNKNOWN_KEY = 111 Invalid "a document has a key that does not exist";
    DUPLICATE_KEY = 112 Invalid "a document says the same key twice";
    MISSING_KEY = 113 Invalid "a document lacks a key that it must have";
    EXTENDS_CYCLE = 114 Invalid "documents extend each other in a circle";
    EXTENDS_UNKNOWN = 115 Invalid "a document extends one that cannot be found";
    BAD_DIRECTIVE = 116 Invalid "a merge directive is misused";
    BAD_TEMPLATE = 117 Invalid "a template cannot be read or rendered";
    UNDEFINED_VARIABLE = 118 Invalid "a template uses a variable that does not exist";
    BAD_PARAMETERS = 119 Invalid "parameters do not fit the release's schema";
    BAD_SCHEMA = 120 Invalid "a release's parameter schema is not a JSON Schema";
    BAD_CONFIG = 130 Invalid "a configuration file is wrong";
}

// P02xx: who is who, and who may do what.
codes! { IDENTITY:
    UNKNOWN_TOKEN = 201 Unauthenticated "a token is not known here";
    EXPIRED_TOKEN = 202 Unauthenticated "a token has expired";
    USED_TOKEN = 203 Unauthenticated "a token has been used already";
    WRONG_CA = 204 Unauthenticated "the master is not of the grid that the token was made for";
    NO_CERTIFICATE = 205 Unauthenticated "a call came without a certificate of this grid";
    REVOKED = 206 Unauthenticated "the caller's certificate has been revoked";
    STALE_CERTIFICATE = 207 Unauthenticated "the caller's certificate has been replaced by a newer one";
    DENIED = 208 Denied "the caller may not do this";
    BAD_CSR = 209 Invalid "a certificate request is not acceptable";
    NOT_YOURS = 210 Denied "a node reported something that is not its own";
    KEY_FILE = 211 Failed "a key or certificate file cannot be used";
}

// P03xx: the master.
codes! { GRID:
    NOT_FOUND = 301 NotFound "what was named does not exist in this grid";
    EXISTS = 302 Conflict "what was to be made exists already";
    IN_USE = 303 Conflict "what was to be removed is in use";
    CONFLICT = 304 Conflict "what was to be changed was changed meanwhile";
    NO_PLACE = 305 Exhausted "a request fits on no node";
    DESTROYED = 306 Conflict "an instance is being destroyed";
    STALE_REPORT = 307 Conflict "a report is older than what is known";
    LEDGER_GAP = 308 Conflict "a usage report does not follow the one before it";
    STORE_FAILED = 310 Failed "the master's store failed";
    STORE_VERSION = 311 Failed "the master's store was written by a newer version";
    SHUTTING_DOWN = 313 Unavailable "the master is shutting down";
    TOO_MANY = 314 Exhausted "a limit on how many there may be was reached";
    LEDGER_CHANGED = 315 Failed "the ledger is not as it was booked";
    NOT_RUNNING = 316 Conflict "an instance does not run, and what was asked for needs it to";
    INTERNAL = 399 Failed "the grid failed in a way that it should not";
}

// P04xx: the agent.
codes! { AGENT:
    SOURCE_FETCH = 401 Unavailable "a source of a release cannot be fetched";
    SOURCE_CHECKSUM = 402 Invalid "a source of a release is not what its checksum says";
    BUILD_FAILED = 403 Failed "a release's build failed";
    DISK_FULL = 404 Exhausted "there is no room on the node's disk";
    SERVICE_EXITED = 405 Failed "a service exits again and again";
    SERVICE_START = 406 Failed "a service cannot be started";
    HOOK_FAILED = 407 Failed "a hook of a release failed";
    PROMISE_FAILED = 408 Failed "a promise does not hold";
    FILES_FAILED = 409 Failed "a partition's files cannot be written";
    ERASE_FAILED = 410 Failed "a partition cannot be emptied";
    NO_NODE_FILE = 411 Failed "the node has not been formatted";
    BAD_STATE_FILE = 412 Failed "a file of the agent's state cannot be used";
    PRIVILEGE = 413 Denied "the agent may not do this on this host";
    BAD_ARCHIVE = 414 Invalid "an archive cannot be unpacked safely";
    STALLED = 415 TimedOut "a step on a node did not end in time";
    NO_NAMESPACE = 416 Failed "a partition's network namespace cannot be entered";
    FORGED = 417 Denied "the host was asked for what no plan holds";
    SHARE_REFUSED = 418 Denied "a release that another node built is not to be believed";
    SHARE_FAILED = 419 Failed "a release or file cannot be shared";
}

// P05xx: node-format.
codes! { FORMAT:
    FOREIGN = 501 Conflict "something that node-format did not make is in the way";
    NEEDS_ROOT = 502 Denied "this part of formatting needs root";
    KERNEL_LACKS = 503 Failed "the kernel lacks a feature that the plan needs";
    APPLY_FAILED = 504 Failed "an action failed; what had been done was undone";
    UNDO_FAILED = 505 Failed "an action failed, and not all could be undone";
    DRIFT = 506 Conflict "the machine is not as the configuration says";
    OVERLAP = 507 Invalid "ranges overlap or are too small";
    RECORD = 508 Failed "the record of what was made cannot be used";
    STILL_USED = 509 Conflict "a partition is still in use";
    ENROLMENT = 510 Failed "the machine is formatted, but the agent could not be enrolled";
    UPLINK = 511 Conflict "the machine is reached through the uplink";
}

// P06xx: how processes reach each other.
codes! { LINK:
    UNREACHABLE = 601 Unavailable "the other side cannot be reached";
    TLS = 602 Unauthenticated "the other side cannot be trusted";
    BAD_MESSAGE = 603 Invalid "a message cannot be understood";
    DEADLINE = 604 TimedOut "the other side did not answer in time";
    VERSION_SKEW = 605 Conflict "the two sides' versions are too far apart";
    BAD_ADDRESS = 606 Invalid "an address cannot be used";
    OVERLOADED = 607 Exhausted "too many calls at once";
    WRONG_CLOCK = 608 Failed "a node's clock and the master's differ";
}

// P07xx: the command line.
codes! { PEOPLE:
    USAGE = 701 Invalid "a command was not understood";
    NO_PROFILE = 702 Invalid "plat does not know which grid to talk to";
    WAIT_TIMEOUT = 703 TimedOut "what was waited for did not happen in time";
    FILE = 704 Failed "a file cannot be read or written";
    UNKNOWN_CODE = 705 NotFound "there is no such problem code";
    PREREQUISITE = 706 Failed "something that is needed is missing on this machine";
}
