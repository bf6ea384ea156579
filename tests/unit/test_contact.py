"""Contact with a service: a refusal is an answer, silence is not."""

from __future__ import annotations

import pytest

from device_sim.contact import Contact
from tutelage.errors import Code, ObjectError, PersonError, ServiceError, TutelageError


def called(contact: Contact, error: TutelageError | None = None) -> None:
    with contact.calling():
        if error is not None:
            raise error


def test_nothing_is_said_before_the_first_call():
    contact = Contact(lambda: 5.0)
    assert (contact.reached, contact.answered_s) == (False, None)


def test_the_last_answer_is_remembered_while_the_service_is_away():
    now = [1.0]
    contact = Contact(lambda: now[0])
    called(contact)
    assert (contact.reached, contact.answered_s) == (True, 1.0)
    now[0] = 2.0
    away = ServiceError(Code.SERVICE_UNAVAILABLE, "away")
    with pytest.raises(ServiceError) as raised:
        called(contact, away)
    assert raised.value is away
    assert (contact.reached, contact.answered_s) == (False, 1.0)
    now[0] = 3.0
    called(contact)
    assert (contact.reached, contact.answered_s) == (True, 3.0)


@pytest.mark.parametrize("error", [PersonError("anna"), ObjectError(Code.OBJECT_MISSING, "the channel was never set")])
def test_a_refusal_of_what_was_asked_is_an_answer(error: TutelageError):
    contact = Contact(lambda: 7.0)
    with pytest.raises(type(error)):
        called(contact, error)
    assert (contact.reached, contact.answered_s) == (True, 7.0)


def test_a_device_that_may_not_call_has_reached_nobody():
    contact = Contact(lambda: 7.0)
    with pytest.raises(ServiceError):
        called(contact, ServiceError(Code.CALLER_REFUSED, "not with this certificate"))
    assert (contact.reached, contact.answered_s) == (False, None)
