"""Operational logs: what may stand in them, and what is dropped whoever says it."""

import io
import json
import logging
import threading
import warnings

import pytest
import structlog

from dicomnode import logs

PATIENT = "ZZMARKER^PATIENT"
UID = "1.2.840.99999.4711.1"


@pytest.fixture
def stream() -> io.StringIO:
    written = io.StringIO()
    logs.configure("work", form="json", stream=written)
    return written


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_allowed_fields_stay_and_others_are_dropped(stream: io.StringIO) -> None:
    structlog.get_logger().info("job ended", job="J12", elapsed_s=2.5, patient=PATIENT, reason=f"of {PATIENT}", count=3)
    (line,) = lines(stream)
    assert line.keys() == {"time", "level", "role", "event", "job", "elapsed_s", "count"}
    assert (line["role"], line["job"]) == ("work", "J12")


def test_a_value_that_does_not_look_like_its_field_is_dropped(stream: io.StringIO) -> None:
    structlog.get_logger().info("job ended", job=UID, study=PATIENT, peer=UID, address="10.1.2.3", count=PATIENT)
    (line,) = lines(stream)
    assert line.keys() == {"time", "level", "role", "event", "address"}


def test_an_event_text_with_a_uid_is_not_logged(stream: io.StringIO) -> None:
    structlog.get_logger().info(f"study {UID} arrived")
    assert UID not in stream.getvalue()
    assert lines(stream)[0]["event"] == "an event with a text that may not be logged"


def test_an_exception_leaves_class_and_place_but_no_text(stream: io.StringIO) -> None:
    try:
        int(f"{PATIENT} {UID}")
    except ValueError:
        structlog.get_logger().exception("job attempt failed", job="J1")
    (line,) = lines(stream)
    assert line["error"] == "ValueError"
    assert "test_logs.py:" in str(line["where"])
    assert PATIENT not in stream.getvalue()
    assert UID not in stream.getvalue()


def test_library_records_and_warnings_are_reduced_to_their_place(stream: io.StringIO) -> None:
    logging.getLogger("pynetdicom.acse").error("Association with %s for %s", PATIENT, UID)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"invalid value for {PATIENT}", stacklevel=1)
    assert [line["event"] for line in lines(stream)] == ["a library reported something", "a library warned"]
    assert lines(stream)[0]["logger"] == "pynetdicom.acse"
    assert PATIENT not in stream.getvalue()
    assert UID not in stream.getvalue()


def test_a_library_that_repeats_itself_is_heard_once(stream: io.StringIO) -> None:
    for _ in range(50):
        logging.getLogger("pydicom").warning("again")
    assert len(lines(stream)) == 1


def test_handlers_that_libraries_brought_are_taken_away(stream: io.StringIO) -> None:
    private = io.StringIO()
    logger = logging.getLogger("some.library")
    logger.addHandler(logging.StreamHandler(private))
    logger.propagate = False
    logs.take_over_libraries()
    logger.error(PATIENT)
    assert private.getvalue() == ""
    assert len(lines(stream)) == 1


def test_uncaught_exceptions_of_threads_are_reduced_too(stream: io.StringIO) -> None:
    def fail() -> None:
        raise ValueError(PATIENT)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    (line,) = lines(stream)
    assert (line["event"], line["error"]) == ("uncaught exception", "ValueError")
    assert PATIENT not in stream.getvalue()


def test_text_for_terminals_is_key_and_value(stream: io.StringIO) -> None:
    logs.configure("work", form="text", stream=stream)
    structlog.get_logger().info("job ended", job="J12")
    assert 'level=info role=work event="job ended" job=J12' in stream.getvalue()
