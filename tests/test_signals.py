"""How a run is stopped: what a first and a second signal do."""
from tiny_runs import AFTER_UPDATE, INTERRUPT, TERMINATE, TERMINATED, run

from runtime import signals
from runtime.errors import RESUME


def test_only_a_second_ctrl_c_ends_a_run_at_once(data, tmp_path):
    """A signal that was ignored stays ignored, for example SIGHUP under nohup."""
    nohup = 'runtime.signals:run', 1, 'signal.signal(signal.SIGHUP, signal.SIG_IGN)'
    hang_up = AFTER_UPDATE, 2, 'os.kill(os.getpid(), signal.SIGHUP)'
    later = (f'{INTERRUPT}\nimport time\ntime.sleep({signals.SAME_REQUEST_SECONDS} + .2)\n'
             f'{TERMINATE}\nos.kill(os.getpid(), signal.SIGUSR1)\n{INTERRUPT}')
    result = run(data, tmp_path / 'model', nohup, hang_up, (AFTER_UPDATE, 3, later), status=130)
    assert result.err == signals.ANSWER.decode()


def test_the_log_says_what_ended_a_run_whose_terminal_is_gone(data, tmp_path):
    no_terminal = ''.join(f'os.dup2(os.open("/dev/full", os.O_WRONLY), {i})\n' for i in (1, 2))
    run(data, tmp_path / 'model', (AFTER_UPDATE, 3, no_terminal + TERMINATE), status=TERMINATED)
    assert f'Stopped by SIGTERM. {RESUME.capitalize()}' in (tmp_path / 'model.log').read_text()


def test_a_stop_while_lists_are_read_leaves_nothing_behind(data, tmp_path):
    run(data, tmp_path / 'model', ('data.lists:parse_label', 1, INTERRUPT), status=130)
    assert not (tmp_path / 'model').exists()
