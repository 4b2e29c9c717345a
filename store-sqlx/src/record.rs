//! A record in columns and back.

use sessionkit::{
    Error, ErrorKind, Label, Record, Result, Revision, StoreKey, Subject, SubjectSession, Timestamp,
};
use sqlx::{ColumnIndex, Decode, Row, Type};

/// The largest payload of every store of this crate, in bytes: within the smallest packet that a
/// MySQL or MariaDB server takes unless configured otherwise.
pub(crate) const MAX_DATA: usize = 4 << 20;

/// Reads the columns `revision, created_at, expires_at, subject, label, data`, beginning at `first`.
pub(crate) fn record<R>(row: &R, first: usize) -> Result<Record>
where
    R: Row,
    usize: ColumnIndex<R>,
    i64: for<'r> Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: for<'r> Decode<'r, R::Database> + Type<R::Database>,
{
    let subject: Option<Vec<u8>> = column(row, first + 3)?;
    Ok(Record {
        revision: revision(row, first)?,
        created_at: timestamp(row, first + 1)?,
        expires_at: timestamp(row, first + 2)?,
        subject: subject.map(as_subject).transpose()?,
        label: label(row, first + 4)?,
        data: column::<_, Vec<u8>>(row, first + 5)?.into(),
    })
}

/// Reads the columns `session_key, created_at, expires_at, label`.
pub(crate) fn subject_session<R>(row: &R) -> Result<SubjectSession>
where
    R: Row,
    usize: ColumnIndex<R>,
    i64: for<'r> Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: for<'r> Decode<'r, R::Database> + Type<R::Database>,
{
    Ok(SubjectSession {
        key: key(row, 0)?,
        created_at: timestamp(row, 1)?,
        expires_at: timestamp(row, 2)?,
        label: label(row, 3)?,
    })
}

pub(crate) fn key<R>(row: &R, index: usize) -> Result<StoreKey>
where
    R: Row,
    usize: ColumnIndex<R>,
    Vec<u8>: for<'r> Decode<'r, R::Database> + Type<R::Database>,
{
    let bytes: Vec<u8> = column(row, index)?;
    let bytes = bytes.try_into().map_err(|_| ErrorKind::Corrupt)?;
    Ok(StoreKey::from_bytes(bytes))
}

pub(crate) fn revision<R>(row: &R, index: usize) -> Result<Revision>
where
    R: Row,
    usize: ColumnIndex<R>,
    i64: for<'r> Decode<'r, R::Database> + Type<R::Database>,
{
    Ok(Revision::from_bits(
        column::<_, i64>(row, index)?.cast_unsigned(),
    ))
}

/// The revision as the signed number that every database has, with the same bits.
pub(crate) fn revision_bits(revision: Revision) -> i64 {
    revision.to_bits().cast_signed()
}

pub(crate) fn column<'r, R, T>(row: &'r R, index: usize) -> Result<T>
where
    R: Row,
    usize: ColumnIndex<R>,
    T: Decode<'r, R::Database> + Type<R::Database>,
{
    // Not the driver's error as the cause: it may quote the value.
    row.try_get(index).map_err(|_| ErrorKind::Corrupt.into())
}

pub(crate) fn subject_bytes(subject: Option<&Subject>) -> Option<&[u8]> {
    subject.map(|subject| subject.as_str().as_bytes())
}

fn timestamp<R>(row: &R, index: usize) -> Result<Timestamp>
where
    R: Row,
    usize: ColumnIndex<R>,
    i64: for<'r> Decode<'r, R::Database> + Type<R::Database>,
{
    let millis = column(row, index)?;
    let timestamp = Timestamp::from_millis(millis);
    if timestamp.as_millis() != millis {
        return Err(ErrorKind::Corrupt.into());
    }
    Ok(timestamp)
}

fn label<R>(row: &R, index: usize) -> Result<Label>
where
    R: Row,
    usize: ColumnIndex<R>,
    Vec<u8>: for<'r> Decode<'r, R::Database> + Type<R::Database>,
{
    let text = as_text(column(row, index)?)?;
    Label::new(&text).map_err(|_| ErrorKind::Corrupt.into())
}

fn as_subject(bytes: Vec<u8>) -> Result<Subject> {
    Subject::new(as_text(bytes)?).map_err(|_| ErrorKind::Corrupt.into())
}

fn as_text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| Error::from(ErrorKind::Corrupt))
}
