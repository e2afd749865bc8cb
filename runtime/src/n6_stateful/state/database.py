"""The database store: the last ten generations of each state, as rows of one table.

Every state has ten rows, made once. A save overwrites the oldest of them, and a row's `pickle` is byte for
byte what the file store would have written, footer included. A run's statements go through one connection,
each of them a transaction of its own:

    lock      the session's own lock (`pg_try_advisory_lock`, `GET_LOCK`), which ends with the connection
    stamp     UPDATE the ten rows: their `holder` is this run now, and nobody else
    look      SELECT what is kept, and the current pickle
    save      UPDATE one row, WHERE its `holder` is still this run and its `number` is the one that was seen

The lock keeps a second run from beginning. The stamp is what protects the state: whoever takes the state over
stamps the rows first, so a run that was frozen or cut off finds no row any more that it could save to.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from threading import Timer
from typing import Any, BinaryIO

import sqlalchemy as sa

from n6_stateful.errors import ConfigError, StateError, StateLockedError
from n6_stateful.state.format import now, read_state, write_state
from n6_stateful.state.store import BrokenStateError, Generation

VERSION = 1
KEPT = 10
# What a statement needs beside the pickle, bytes; how fast a line must be, bytes/s.
_STATEMENT, _SLOWEST = 2_000, 1 << 20
_ESCAPED = b"\0\n\r\x1a\"'\\"  # what PyMySQL sends as two bytes

# A number below 1 means that the row is empty.
SCHEMA = """\
CREATE TABLE IF NOT EXISTS n6_state (
    name VARCHAR(255), number BIGINT, id VARCHAR(32) NOT NULL, saved VARCHAR(32) NOT NULL,
    format SMALLINT NOT NULL, owner VARCHAR(255) NOT NULL, holder VARCHAR(255) NOT NULL,
    pickle {blob}, PRIMARY KEY (name, number)
){options}"""
GRANT = "GRANT SELECT, INSERT, UPDATE ON n6_state TO"

# A machine that has gone without a word is noticed within a minute.
_SETTINGS = "tcp_keepalives_idle=30 tcp_keepalives_interval=10 tcp_keepalives_count=3 tcp_user_timeout=60000"
_SETTINGS += " idle_session_timeout=0 lock_timeout=30000 synchronous_commit=on"


class _PostgreSQL:
    """What the engines have no common words for: SQL, and options for the driver, where the URL has none."""

    driver = "postgresql+psycopg"
    options = {"connect_timeout": "{timeout}"}
    schema = SCHEMA.format(blob="BYTEA", options="")
    # Gives whether the lock was got, and the number of this session.
    lock = "SELECT pg_try_advisory_lock(CAST(%(key)s AS bigint)), pg_backend_pid(), " + ", ".join(
        "set_config('{}', '{}', false)".format(*each.split("=")) for each in _SETTINGS.split()
    )
    # Gives the number of the session that has the lock.
    lock_session = (
        "SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database WHERE objsubid = 1 "
        "AND granted AND locktype = 'advisory' AND datname = current_database() "
        "AND CAST(classid AS bigint) << 32 | CAST(objid AS bigint) = CAST(%(key)s AS bigint)"
    )
    end_session = "SELECT pg_terminate_backend(CAST(%(session)s AS integer))"
    limit = "1000000000"


class _MariaDB(_PostgreSQL):
    driver = "mysql+pymysql"
    options = dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), "{timeout}")
    options["init_command"] = "SET SESSION wait_timeout = 28800, sql_mode = 'STRICT_ALL_TABLES'"
    schema = SCHEMA.format(blob="LONGBLOB", options=" ENGINE=InnoDB CHARSET utf8mb4 COLLATE utf8mb4_bin")
    lock = "SELECT GET_LOCK(%(key)s, 0), CONNECTION_ID()"
    lock_session = "SELECT IS_USED_LOCK(%(key)s)"
    end_session = "KILL CONNECTION %(session)s"
    limit = "@@max_allowed_packet DIV 2"  # as measured: a statement of half of it is refused


ENGINES = {"postgresql": _PostgreSQL, "postgres": _PostgreSQL, "mysql": _MariaDB, "mariadb": _MariaDB}

# SQLSTATEs are PostgreSQL's, numbers MariaDB's.
_NO_TABLE, _IS_MADE_BY_ANOTHER_RUN = ("42P01", 1146), ("23505", "42P07", "42710")
_ADVICE: list[tuple[Sequence[str | int], str]] = [
    (("42501", 1142, 1143), ""),  # depends on what for
    (("42703", 1054), "another table is called n6_state; `state schema` prints ours"),
    (("25006", 1290, 1792, 1836), "it is a standby, or read-only: [state] url must name the primary"),
    (("53100", 1021, 1030, 1114), "make room on the database's disk"),
    (("53300", 1040, 1203), "let it take more connections, or run fewer collectors at once"),
    ((), "see that the database runs, and that [state] url is right"),
]


class _LostError(StateError):
    """There is no connection, or no longer."""


def configured_store(options: Mapping[str, Any], name: str, collector_class: type) -> DatabaseStore:
    """The store of `[state] url`.

    Args:
        options: those of `[state]`.
        name: of the state.
        collector_class: whose state it is.

    Raises:
        ConfigError: as `DatabaseStore` says, or `url_file` cannot be read.
    """
    url = options["url"]
    if options["url_file"]:
        try:
            url = Path(options["url_file"]).expanduser().read_text().strip()
        except (OSError, ValueError) as exc:
            raise ConfigError(f"[state] url_file: cannot be read: {exc}") from exc
        if not url:
            raise ConfigError(f"[state] url_file: {options['url_file']} is empty")
    # A module that runs as a program has another name as long as it does.
    spec = getattr(sys.modules.get(collector_class.__module__), "__spec__", None)
    module = spec.name if spec else collector_class.__module__
    return DatabaseStore(url, name, f"{module}.{collector_class.__qualname__}", options["timeout"])


class DatabaseStore:
    """A `StateStore` in the database at `url`.

    Args:
        url: `postgresql://user:password@host/database` or `mysql://...` (MariaDB); what follows a `?` is for
            psycopg or PyMySQL.
        name: of the state.
        owner: the collector's class; a state of another one is refused.
        timeout: how many seconds a statement may take; a lost database is waited for twice as long.

    Attributes:
        engine: has the SQL that makes the table.

    Raises:
        ConfigError: the URL is wrong.
        ImportError: the driver is missing.
    """

    def __init__(self, url: str, name: str, owner: str, timeout: float = 30) -> None:
        try:
            parsed = sa.make_url(url)
            # With an @ in it, what seems to be the host begins with a part of the password.
            backend = "" if "@" in f"{parsed.host}{parsed.database}" else parsed.get_backend_name()
            self.engine = ENGINES[backend]
            seconds, options = max(1, round(timeout)), self.engine.options.items()
            query = {option: value.format(timeout=seconds) for option, value in options} | dict(parsed.query)
            full = parsed.set(drivername=self.engine.driver, query=query)
            self._database = sa.create_engine(full, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        except (sa.exc.ArgumentError, KeyError, ValueError):  # what they say may hold the password
            raise ConfigError(
                "[state] url, or what is in url_file, must be postgresql://USER:PASSWORD@HOST/DATABASE or "
                "mysql://..., with special characters in the password escaped: @ as %40 (in a configuration "
                "file %%40)"
            ) from None
        # It would ask for what our few plain statements do not depend on, in seven round trips.
        self._database.dialect.initialize = lambda connection: None  # type: ignore[method-assign]
        host = f"{parsed.host or ''}{f':{parsed.port}' if parsed.port else ''}"
        # Not a URL: of those a log tells no more than the host.
        self.where = f"{parsed.get_backend_name()} {host}/{parsed.database or ''} n6_state {name}"
        # The names of GET_LOCK are the server's, not the database's.
        key = hashlib.sha256(f"{parsed.database}\0{name}".encode()).hexdigest()
        self._key = f"n6:{key[:40]}" if self.engine is _MariaDB else int(key[:16], 16) - (1 << 63)
        self._name, self._owner, self._timeout = name, owner, timeout
        self._user = f'"{parsed.username}"' if self.engine is _PostgreSQL else f"'{parsed.username}'@'%'"
        given = [parsed.password, *(parsed.query.get(each) for each in ("password", "passwd"))]
        self._secrets = [str(each) for each in given if each]
        self._connection: sa.Connection | None = None
        self._heard = 0.0
        self._session = self._limit = 0
        self._me = ""  # as the stamp says it, while the lock is held
        self._stamps: set[str] = set()
        # As they were seen last: the newest first, then the empty ones.
        self._rows: list[Generation] = []
        self._pickles: dict[str, bytes] = {}  # of the newest, by its id

    # Lock

    def lock(self) -> None:
        """Take the session's lock and stamp the rows; if that was done, see that it still holds.

        Raises:
            StateLockedError: another run has it.
            StateError: the database or its table cannot be used, or the connection was lost and another run
                has had the state since.
        """
        if not self._me:
            try:
                self._lock()
            except BaseException:
                self.unlock()
                raise
        elif self._connection is not None and time.monotonic() - self._heard > 30:
            with suppress(_LostError):
                self._sql("SELECT 1")
        if self._connection is None:
            self._take_again()

    def _lock(self) -> None:
        while not self._try_lock():
            if holder := self.holder():  # else it was unlocked meanwhile
                raise StateLockedError(
                    f"another run is in progress ({holder}) and has locked {self.where}; nothing was done; "
                    "try again when it has ended, or end that session if its machine is gone"
                )
        if self._stamp("owner = %(owner)s AND format = %(format)s") != KEPT:
            self._make_rows()
        self._look()

    def _try_lock(self) -> bool:
        got, session, *_ = self._sql(self.engine.lock).one()
        self._session = session if got else self._session
        return bool(got)

    def _stamp(self, condition: str) -> int:
        """Take over the rows that are as the condition says, and count them; `old` in it is the stamp that
        this run gave them before."""
        me = f"process {os.getpid()} on {socket.gethostname()}, since {now()}, run {os.urandom(4).hex()}, "
        self._me, old = f"{me}database session {self._session}", self._me
        stamp = f"UPDATE n6_state SET holder = %(me)s WHERE name = %(name)s AND {condition}"  # noqa: S608 - ours
        done = self._sql(stamp, but=_NO_TABLE, old=old)
        if done is None:
            mend = "have a user who may run what `state schema` prints"
            self._sql(self.engine.schema, _IS_MADE_BY_ANOTHER_RUN, "there is no table: ", mend=mend)
        return 0 if done is None else int(done.rowcount)

    def _make_rows(self) -> None:
        """Insert the empty rows that are missing, with numbers that are not there yet."""
        found = self._sql("SELECT number, owner, format FROM n6_state WHERE name = %(name)s").all()
        for _, owner, format in found:
            if (owner, format) != (self._owner, VERSION):
                raise StateError(
                    f"{self.where}: was written by {owner} in format {format}; this is {self._owner}, format "
                    f"{VERSION}: upgrade the runtime if that is lower; give one of two collectors another "
                    "get_cache_file_name(); or, if the class was renamed, set the owner of those rows"
                )
        lowest = min([1, *(number for number, *_ in found)])
        for number in range(lowest - KEPT + len(found), lowest):
            new = "%(name)s, %(number)s, '', '', %(format)s, %(owner)s, %(me)s, NULL"
            self._sql(f"INSERT INTO n6_state VALUES ({new})", number=number)  # noqa: S608 - ours

    def unlock(self) -> None:
        """End the session, and its lock with it."""
        self._me, self._rows = "", []
        self._disconnect()

    def holder(self) -> str | None:
        """The run whose session has the lock."""
        for _ in range(50):
            session = self._sql(self.engine.lock_session).scalar()
            self._look()
            stamp = next((each for each in self._stamps if each.endswith(f" {session}")), None)
            if stamp or session is None:
                return stamp
            time.sleep(0.02)  # who has just got the lock has not said so yet
        return f"database session {session}"

    def _take_again(self, saving: str | None = None) -> bool:
        """After the connection was lost: take the lock again, if no other run has had it.

        Args:
            saving: the id of the generation whose save was not answered.

        Returns:
            Whether that was saved.
        """
        old, deadline, problem = self._session, time.monotonic() + 2 * self._timeout, f"{self.where}: "
        while time.monotonic() < deadline:
            try:
                got = self._try_lock()
                landed = saving in [each.id for each in self._look()]
                if (got and self._stamp("holder = %(old)s")) or landed:
                    return landed
                session = None if got else self._sql(self.engine.lock_session).scalar()
                if session == old:
                    # Nobody has told the server that its session is lost; it may even be saving still.
                    self._sql(self.engine.end_session, session=old)
                elif got or session is not None:
                    raise self._overtaken()
            except _LostError as exc:
                problem = f"{exc}; "
            time.sleep(0.1)
        outcome = "whether the state was saved is not known" if saving else "nothing was saved"
        raise StateError(f"{problem}the connection was lost, and {outcome}")

    def _overtaken(self) -> StateError:
        self._look()
        self._disconnect()  # never again take it for one that has the lock
        others = ", ".join(self._stamps - {self._me}) or "unknown"
        return StateError(
            f"{self.where}: another run ({others}) has taken over the state since this one was cut off; "
            "nothing was saved: what this run published comes again, with the same ids"
        )

    # Read

    def prove_writable(self, size: int = 0) -> None:
        """Return if a state of that size, by default the last one's, can be sent. That the rows can be
        changed is known, as `lock` has stamped them; how much room a database has it tells nobody."""
        size = size or self._rows[0].size
        if size + _STATEMENT > self._limit:
            raise StateError(
                f"{self.where}: the state of {size:,} bytes is larger than the database takes "
                f"({self._limit:,} bytes): remember less, or let max_allowed_packet be more than twice that"
            )

    def generations(self) -> list[Generation]:
        """Up to ten, by what is beside the pickles."""
        rows = self._rows if self._me else self._look()
        return [each for each in rows if each.number > 0]

    def _look(self) -> list[Generation]:
        """See the rows, the newest generation first, and its pickle; none if there is no table."""
        done = self._sql(
            f"SELECT id, number, saved, COALESCE(LENGTH(pickle), 0), holder, {self.engine.limit}, "  # noqa: S608
            "CASE WHEN number = (SELECT MAX(number) FROM n6_state WHERE name = %(name)s) THEN pickle END "
            "FROM n6_state WHERE name = %(name)s ORDER BY number DESC",
            but=_NO_TABLE,
        )
        self._rows, self._stamps, self._pickles = [], set(), {}
        for *row, holder, self._limit, pickle in done or ():
            self._rows.append(Generation._make([*row, f"{self.where}, number {row[1]}", ""]))
            self._stamps.add(holder)
            self._pickles |= {row[0]: pickle} if pickle else {}
        return self._rows

    def read(
        self, load: Callable[[BinaryIO], Any], generation: Generation | None = None
    ) -> tuple[Any, Generation]:
        """See `StateStore.read`."""
        wanted = generation or next(iter(self.generations()), None)
        if wanted is None:
            raise FileNotFoundError(self.where)
        pickle = self._pickles.get(wanted.id)
        if pickle is None:
            ours = "SELECT pickle FROM n6_state WHERE name = %(name)s AND number = %(number)s AND id = %(id)s"
            found = self._sql(ours, size=wanted.size, number=wanted.number, id=wanted.id).all()
            if not found:
                raise StateError(f"{wanted.where}: a later save has just taken its place; look again")
            pickle = found[0][0]
        loaded, generation = read_state(wanted.where, BytesIO(pickle or b""), load)
        if generation[:2] != wanted[:2]:
            raise BrokenStateError(f"{wanted.where}: its contents are not what was saved")
        return loaded, wanted

    def set_aside(self, broken: Generation) -> str:
        """Give its row another name, and put an empty one in its place."""
        suffix = f".broken-{now().replace(':', '')}-{broken.number}"
        self._update("name = %(aside)s", number=broken.number, aside=self._name + suffix)
        self._make_rows()  # the next run does, if this one is killed here
        self._look()
        return self.where + suffix

    def set_aside_names(self) -> list[str]:
        """The broken ones, oldest first."""
        start = f"{self._name}.broken-"
        names = "SELECT name FROM n6_state WHERE LEFT(name, %(length)s) = %(start)s ORDER BY name"
        done = self._sql(names, but=_NO_TABLE, length=len(start), start=start)
        return [self.where + name.removeprefix(self._name) for (name,) in done or ()]

    # Runs, in rows of another name

    def put_run(self, number: int, record: bytes, keep: int, *, precious: bool) -> None:
        """Keep the record of a run in the row of that number; it takes the place of the oldest one if there
        are `keep`, but not of the last one that is precious, or else of the first, beside as many others.
        Before the first run of all has made the table, nothing is kept."""
        new: dict[str, Any] = {"name": f"{self._name}.runs", "number": number, "record": record, "now": now()}
        new["id"] = "precious" if precious else ""
        put = "UPDATE n6_state SET number = %(number)s, id = %(id)s, saved = %(now)s, pickle = %(record)s "
        put += "WHERE name = %(name)s"
        done = self._sql(f"{put} AND number = %(number)s", but=_NO_TABLE, **new)
        if done is None or done.rowcount:
            return
        (oldest,) = self._sql(
            "SELECT CASE WHEN COUNT(*) >= %(keep)s THEN MIN(number) END FROM n6_state WHERE name = %(name)s "
            "AND number <> COALESCE((SELECT MAX(number) FROM n6_state WHERE name = %(name)s "
            "AND id = 'precious'), (SELECT MIN(number) FROM n6_state WHERE name = %(name)s))",
            keep=keep,
            **new,
        ).one()
        if oldest is None or not self._sql(f"{put} AND number = %(oldest)s", oldest=oldest, **new).rowcount:
            values = "%(name)s, %(number)s, %(id)s, %(now)s, %(format)s, %(owner)s, '', %(record)s"
            self._sql(f"INSERT INTO n6_state VALUES ({values})", **new)  # noqa: S608 - ours

    def runs(self) -> list[bytes]:
        """The records that are kept, the oldest first."""
        rows = "SELECT pickle FROM n6_state WHERE name = %(name)s ORDER BY number"
        return [record for (record,) in self._sql(rows, but=_NO_TABLE, name=f"{self._name}.runs") or ()]

    # Write

    def write(self, dump: Callable[[Any], None], number: int, *, keep_previous: bool = True) -> Generation:
        """Overwrite one row; for the rest see `StateStore.write`. The pickle is made in memory."""
        buffer = BytesIO()
        generation = write_state(buffer, dump, os.urandom(16).hex(), number, f"{self.where}, number {number}")
        pickle = buffer.getvalue()
        self.prove_writable(len(pickle) + sum(map(pickle.count, _ESCAPED)))
        row = self._rows[-1 if keep_previous or self._rows[0].number < 1 else 0]
        new = "number = %(newer)s, id = %(id)s, saved = %(saved)s, pickle = %(pickle)s"
        values = {"number": row.number, "newer": number, "size": len(pickle), "pickle": pickle}
        values |= {"id": generation.id, "saved": generation.saved}
        try:
            self._update(new, **values)
        except _LostError:
            if not self._take_again(generation.id):
                self._update(new, **values)
        self._rows = [generation, *(each for each in self._rows if each.number not in (row.number, number))]
        self._pickles = {}
        return generation

    def _update(self, new: str, **values: Any) -> None:
        """Change the row of that `number`, if it is this run's still."""
        update = (
            f"UPDATE n6_state SET {new} WHERE name = %(name)s AND number = %(number)s AND holder = %(me)s"  # noqa: S608
        )
        problem = "the state could not be saved and is what it was: "
        if not self._sql(update, problem=problem, **values).rowcount:
            raise self._overtaken()

    # Connection

    def _sql(
        self,
        sql: str,
        but: Sequence[str | int] = (),
        problem: str = "",
        mend: str = "",
        size: int = 0,
        **values: Any,
    ) -> Any:
        """Execute it, after connecting if need be; None after an error of the codes in `but`. `mend` says
        what to do where the user may not do it."""
        ours = {"name": self._name, "owner": self._owner, "format": VERSION, "me": self._me, "key": self._key}
        try:
            self._connection = self._connection or self._database.connect()
            # Psycopg has no timeout for statements; PyMySQL has one of its own.
            line = self._connection.connection.driver_connection
            timer = Timer(self._timeout + size / _SLOWEST, _cut, (line,))
            timer.start()
            try:
                result = self._connection.exec_driver_sql(sql, ours | values)
            finally:
                timer.cancel()
        except sa.exc.DBAPIError as exc:
            cause = exc.orig.args[0] if exc.orig and exc.orig.args else ""
            code = cause if isinstance(cause, int) else getattr(exc.orig, "sqlstate", None)
            if code in but:
                return None
            lost = self._connection is None or exc.connection_invalidated
            if lost:
                self._disconnect()
            text = " ".join(str(exc.orig.args[-1] if exc.orig and exc.orig.args else exc).split())
            advice = next(advice for codes, advice in _ADVICE if code in codes or not codes)
            told = f"{self.where}: {problem}{text}; {advice or mend or f'{GRANT} {self._user}'}"
            for secret in self._secrets:
                told = told.replace(secret, "***")
            raise (_LostError if lost else StateError)(told) from None
        except (OSError, TypeError) as exc:  # of a certificate, or an option of the driver
            raise StateError(f"{self.where}: {problem}{exc}; see [state] url") from exc
        self._heard = time.monotonic()
        return result

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()  # without a ROLLBACK
            connection.close()


def _cut(connection: Any) -> None:
    with suppress(OSError, AttributeError), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
