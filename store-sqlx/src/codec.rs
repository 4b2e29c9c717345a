//! A record in columns and back.

use sessionkit::{
    Error, ErrorKind, Label, Record, Result, Revision, StoreKey, Subject, SubjectSession, Timestamp,
};

use crate::{
    failure::Effect,
    statement::{Driver, Runner, Statement},
};

/// The largest payload of every store of this crate, in bytes: within the smallest packet that a
/// MySQL or MariaDB server takes unless configured otherwise.
pub(crate) const MAX_DATA: usize = 4 << 20;

/// The expiry that a write stores when the one it was given is over: before every time that another
/// call can have told.
pub(crate) const ENDED: Timestamp = Timestamp::MIN;

/// Reads the columns `revision, created_at, expires_at, subject, label, data`, beginning at `first`.
pub(crate) fn record<DB: Driver>(row: &DB::Row, first: usize) -> Result<Record> {
    let subject = optional_bytes::<DB>(row, first + 3)?;
    Ok(Record {
        revision: revision::<DB>(row, first)?,
        created_at: timestamp::<DB>(row, first + 1)?,
        expires_at: timestamp::<DB>(row, first + 2)?,
        subject: subject.map(as_subject).transpose()?,
        label: label::<DB>(row, first + 4)?,
        data: bytes::<DB>(row, first + 5)?.into(),
    })
}

/// Reads the columns `session_key, created_at, expires_at, label`.
fn subject_session<DB: Driver>(row: &DB::Row) -> Result<SubjectSession> {
    Ok(SubjectSession {
        key: key::<DB>(row, 0)?,
        created_at: timestamp::<DB>(row, 1)?,
        expires_at: timestamp::<DB>(row, 2)?,
        label: label::<DB>(row, 3)?,
    })
}

/// Lists the sessions in the rows of a statement, which is given the key to begin behind and the
/// number of rows. Rows that cannot be read are nobody's sessions, and leave room for others.
pub(crate) async fn list<DB: Driver>(
    runner: &Runner<DB>,
    after: Option<&StoreKey>,
    limit: usize,
    statement: impl Fn(&[u8], i64) -> Statement<DB> + Send + Sync,
) -> Result<Vec<SubjectSession>> {
    let end = runner.end();
    let mut after = after.map_or(Vec::new(), |key| key.as_bytes().to_vec());
    let mut sessions = Vec::new();
    loop {
        let wanted = limit - sessions.len();
        let rows = i64::try_from(wanted).unwrap_or(i64::MAX);
        let answer = runner
            .call_until(end, Effect::Read, || statement(&after, rows))
            .await
            .map_err(|failure| failure.into_error(Effect::Read))?;
        let readable = |row| subject_session::<DB>(row).ok();
        sessions.extend(answer.rows.iter().filter_map(readable));
        match answer.rows.last() {
            Some(last) if answer.rows.len() == wanted && sessions.len() < limit => {
                after = bytes::<DB>(last, 0)?;
            }
            _ => return Ok(sessions),
        }
    }
}

pub(crate) fn key<DB: Driver>(row: &DB::Row, index: usize) -> Result<StoreKey> {
    let bytes = bytes::<DB>(row, index)?;
    let bytes = bytes.try_into().map_err(|_| ErrorKind::Corrupt)?;
    Ok(StoreKey::from_bytes(bytes))
}

pub(crate) fn revision<DB: Driver>(row: &DB::Row, index: usize) -> Result<Revision> {
    let bits = number::<DB>(row, index)?.cast_unsigned();
    Ok(Revision::from_bits(bits))
}

/// The revision as the signed number that every database has, with the same bits.
pub(crate) fn bits(revision: Revision) -> i64 {
    revision.to_bits().cast_signed()
}

/// Binds the columns `revision, created_at, expires_at, subject, label, data`, the expiry as often
/// as the statement needs it.
pub(crate) fn bind<DB: Driver>(
    statement: Statement<DB>,
    record: &Record,
    expiries: usize,
    now: Timestamp,
) -> Statement<DB> {
    let mut statement = statement.revision(record.revision).time(record.created_at);
    for _ in 0..expiries {
        statement = statement.time(expiry(record.expires_at, now));
    }
    statement
        .bytes(record.subject.as_ref().map(|s| s.as_str().as_bytes()))
        .bytes(record.label.as_str().as_bytes())
        .bytes(&record.data[..])
}

/// An expiry as it is stored. One that is over ends the session at once, also for a call that told
/// the time before.
pub(crate) fn expiry(expires_at: Timestamp, now: Timestamp) -> Timestamp {
    if expires_at <= now { ENDED } else { expires_at }
}

pub(crate) fn number<DB: Driver>(row: &DB::Row, index: usize) -> Result<i64> {
    // Not the driver's error as the cause: it may quote the value.
    DB::number(row, index).map_err(|_| ErrorKind::Corrupt.into())
}

/// The text of a catalogue.
pub(crate) fn text<DB: Driver>(row: &DB::Row, index: usize) -> Result<String> {
    as_text(bytes::<DB>(row, index)?)
}

/// A table's comment in the first column, or nothing where there is none.
pub(crate) fn comment<DB: Driver>(row: Option<&DB::Row>) -> String {
    row.and_then(|row| text::<DB>(row, 0).ok())
        .unwrap_or_default()
}

fn bytes<DB: Driver>(row: &DB::Row, index: usize) -> Result<Vec<u8>> {
    optional_bytes::<DB>(row, index)?.ok_or_else(|| ErrorKind::Corrupt.into())
}

fn optional_bytes<DB: Driver>(row: &DB::Row, index: usize) -> Result<Option<Vec<u8>>> {
    DB::bytes(row, index).map_err(|_| ErrorKind::Corrupt.into())
}

pub(crate) fn timestamp<DB: Driver>(row: &DB::Row, index: usize) -> Result<Timestamp> {
    let millis = number::<DB>(row, index)?;
    let timestamp = Timestamp::from_millis(millis);
    if timestamp.as_millis() != millis {
        return Err(ErrorKind::Corrupt.into());
    }
    Ok(timestamp)
}

fn label<DB: Driver>(row: &DB::Row, index: usize) -> Result<Label> {
    let text = as_text(bytes::<DB>(row, index)?)?;
    Label::from_stored(&text).map_err(|_| ErrorKind::Corrupt.into())
}

fn as_subject(bytes: Vec<u8>) -> Result<Subject> {
    Subject::from_stored(as_text(bytes)?).map_err(|_| ErrorKind::Corrupt.into())
}

fn as_text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| Error::from(ErrorKind::Corrupt))
}
