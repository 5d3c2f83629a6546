"""How a run is stopped: what a first and a second signal do."""
import os
import signal

import pytest
from tiny_runs import AFTER_UPDATE, INTERRUPT, TERMINATE, TERMINATED, run

from runtime import signals
from runtime.errors import RESUME


@pytest.fixture
def request_(monkeypatch):
    """An installed StopRequest, and the statuses with which the process would have ended."""
    before = {number: signal.getsignal(number) for number in signals.StopRequest.SIGNALS}
    for number in before:  # a shell's background ignores SIGINT, and nohup ignores SIGHUP
        signal.signal(number, signal.SIG_DFL)
    ends, stop = [], signals.StopRequest()
    monkeypatch.setattr(os, '_exit', ends.append)
    stop.install()
    yield stop, ends
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize('number', signals.StopRequest.SIGNALS)
def test_a_signal_sent_twice_is_one_request(request_, capfd, number):
    """`timeout` signals the process and its group; batch systems may repeat a signal."""
    stop, ends = request_
    for _ in range(2):
        os.kill(os.getpid(), number)
    assert stop.signal_number == number and not ends
    assert capfd.readouterr().err == signals.ANSWER.decode()


def test_only_a_second_ctrl_c_ends_at_once(request_, monkeypatch):
    stop, ends = request_
    monkeypatch.setattr(signals, 'SAME_REQUEST_SECONDS', 0)
    os.kill(os.getpid(), signal.SIGUSR1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        os.kill(os.getpid(), number)
    assert stop.signal_number == signal.SIGUSR1 and not ends
    os.kill(os.getpid(), signal.SIGINT)
    assert ends == [130]


def test_an_ignored_signal_stays_ignored(request_):
    """For example SIGHUP under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals.StopRequest().install()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_second_ctrl_c_ends_a_run_at_once(data, tmp_path):
    code = f'{INTERRUPT}\nimport time\ntime.sleep(.5)\n{INTERRUPT}'
    result = run(data, tmp_path / 'model', (AFTER_UPDATE, 3, code))
    assert result.status == 130 and result.err == signals.ANSWER.decode()


def test_the_log_says_what_ended_a_run_whose_terminal_is_gone(data, tmp_path):
    no_terminal = 'os.dup2(os.open("/dev/full", os.O_WRONLY), 2)\n'
    run(data, tmp_path / 'model', (AFTER_UPDATE, 3, no_terminal + TERMINATE), status=TERMINATED)
    assert f'Stopped by SIGTERM. {RESUME.capitalize()}' in (tmp_path / 'model.log').read_text()


def test_a_long_list_is_left_when_a_stop_is_asked_for(data, tmp_path):
    run(data, tmp_path / 'model', ('data.lists:parse_label', 1, INTERRUPT), status=130)
    assert not (tmp_path / 'model').exists()
