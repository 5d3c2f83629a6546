"""A run on several machines, found through TF_CONFIG: who takes part, what comes next, who is gone.

tf.distribute trains stage 1 on all machines; everything else is the chief's work. Beside
TensorFlow's own connections, which exist in stage 1 only, every worker holds one to the chief from
its start to its end: over it the chief says which step comes next, and each side notices at once
when the other one is gone. What passes from step to step is not sent but read from model_dir, which
all share.
"""

import collections
import contextlib
import json
import multiprocessing
import os
import queue
import secrets
import socket
import threading
import time
from multiprocessing import connection

from runtime import LOG, checkpoints, run_log, signals, state
from runtime.errors import UserError
from runtime.signals import STOP

ENVIRONMENT = 'TF_CONFIG'
POLL_SECONDS = 0.2
SETTLE_SECONDS = 2
STOP_SECONDS = 60  # after which a process no longer waits for itself to stop
# A machine that vanished is noticed after 10 + 3 * 5 seconds; a process that ended, at once.
KEEPALIVE = ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
             (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
             (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
             (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
             (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25000))  # ms, while words are under way


# machines: 'host:port' of every process, the chief's first; index: this process's place in it.
Task = collections.namedtuple('Task', ['machines', 'index', 'tf_config'])


def take_task():
    """The Task that TF_CONFIG describes, which is taken out of the environment; None without one.

    Estimators look for it there as well, but only stage 1 is for all machines (`announced`).

    Raises:
        UserError: TF_CONFIG is not what tf.distribute's documentation says.
    """
    text = os.environ.pop(ENVIRONMENT, '')
    try:
        config = json.loads(text or '{}')
        jobs = config.get('cluster', {})
        chiefs = jobs.get('chief', [])
        machines = chiefs + jobs.get('worker', [])
        if not machines:
            return None
        index = int(config['task']['index'])
        own = jobs[config['task']['type']][index]
        if (index < 0 or len(set(machines)) < len(machines) or len(chiefs) > 1
                or set(jobs) - {'chief', 'worker'}):
            raise ValueError
        for machine in machines:
            int(machine.rsplit(':', 1)[1])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise UserError(
            '{}={} cannot be understood; it should look like {}, with workers and at most one '
            'chief'.format(ENVIRONMENT, text[:200], json.dumps({
                'cluster': {'worker': ['host1:2222', 'host2:2222']},
                'task': {'type': 'worker', 'index': 0}}))) from None
    return Task(machines, machines.index(own), text) if len(machines) > 1 else None


def join(model_dir, stack, look):
    """(task, job): this process's Task and the Cluster, connected; None where it runs alone.

    The Cluster is left with the ExitStack `stack`. `look`: whether this is but a look around, which
    each does for itself.
    """
    task = take_task()
    if task is None or look:
        return task, None
    return task, stack.enter_context(Cluster(task, model_dir))


@contextlib.contextmanager
def announced(task):
    """TF_CONFIG as it was given, for an estimator that trains on all machines; None: just here."""
    if task is not None:
        os.environ[ENVIRONMENT] = task.tf_config
    try:
        yield
    finally:
        os.environ.pop(ENVIRONMENT, None)


def check_images(word, digest, data_dir):
    """Raises UserError where a step has other training images here than the chief's word says."""
    if digest != word['images']:
        raise UserError('step {} has other training images here than at the chief: {} and the '
                        'images in it have to be the same on all machines'.format(
                            word['step'] + 1, data_dir))


def name_of(task, index):
    """What messages call a process."""
    who = 'the chief' if index == 0 else 'worker {}'.format(index)
    return '{} ({})'.format(who, task.machines[index])


class Cluster:
    """The processes of a job of several machines, as one of them, with this Task, sees it."""

    def __init__(self, task, model_dir):
        self.task = task
        self.is_chief = task.index == 0
        self._model_dir = model_dir
        self._path = os.path.join(model_dir, state.CLUSTER)
        self._peers = {}  # index: connection; the chief has all workers', a worker the chief's
        self._messages = queue.Queue()
        self._leaving = False

    def __enter__(self):
        """Connects the chief with all workers."""
        if self.is_chief:
            others = range(1, len(self.task.machines))
            connect, arguments = self._accept, (self._announced(), len(others))
            LOG.info('waiting for %s', ', '.join(name_of(self.task, i) for i in others))
        else:
            others, connect, arguments = [0], self._find_chief, ()
            LOG.info('waiting for %s to show in %s', name_of(self.task, 0), self._path)
        # In a thread, so that a request to stop is answered meanwhile.
        threading.Thread(target=connect, args=arguments, daemon=True).start()
        while len(self._peers) < len(others):
            STOP.check()
            time.sleep(POLL_SECONDS)
        if self.is_chief:
            state.delete(self._path)
        return self

    def __exit__(self, kind, error, _):
        if error is None:
            self.leave()
        elif hasattr(error, 'signal_number'):
            self.leave(signal=error.signal_number)
        else:
            # Where another process is gone, that is the news, not what TensorFlow says to it.
            time.sleep(SETTLE_SECONDS)
            self.leave(error=run_log.failure(error))

    def _announced(self):
        """The chief's Listener, which workers find in model_dir."""
        token = secrets.token_hex(16)  # each proves that it knows it
        listener = connection.Listener(('', 0), backlog=len(self.task.machines),
                                       authkey=token.encode())
        host = self.task.machines[0].rsplit(':', 1)[0].strip('[]')
        state.make(self._model_dir).close()
        state.write_atomically(self._path, json.dumps(
            {'address': [host, listener.address[1]], 'token': token}).encode(), mode=0o600)
        return listener

    def _accept(self, listener, count):
        with listener:
            while len(self._peers) < count:
                # Others may come by, such as a worker that read an earlier chief's token.
                with contextlib.suppress(OSError, EOFError, multiprocessing.AuthenticationError):
                    worker = listener.accept()
                    self._add(worker.recv(), worker)

    def _find_chief(self):
        said = None
        while not self._peers:
            try:
                with open(self._path, encoding='utf-8') as file:
                    found = json.load(file)
                chief = connection.Client(tuple(found['address']), authkey=found['token'].encode())
                chief.send(self.task.index)
                self._add(0, chief)
            except FileNotFoundError:
                pass  # the chief is not there yet
            except (OSError, EOFError, ValueError,
                    multiprocessing.AuthenticationError) as error:
                # It is an earlier chief's, or not all of it shows yet, or it cannot be reached.
                if str(error) != said:
                    said = str(error)
                    LOG.info('%s: nobody there can be reached yet: %s', self._path, said)
            time.sleep(POLL_SECONDS)

    def _add(self, index, peer):
        with socket.fromfd(peer.fileno(), socket.AF_INET, socket.SOCK_STREAM) as same:
            for option in KEEPALIVE:
                same.setsockopt(*option)
        threading.Thread(target=self._listen, args=(index, peer), daemon=True).start()
        self._peers[index] = peer

    def agree(self, identity):
        """All have to be the same run: `identity`, a dict of what must be equal.

        Raises:
            UserError: a worker was started with other settings, lists or GPUs than the chief.
        """
        if not self.is_chief:
            self.tell(index=self.task.index, identity=identity)
            return
        for _ in self._peers:
            word = self.hear()
            other = state.differences(identity, word['identity'])
            if other:
                raise UserError('{} was started with other settings or lists: {}'.format(
                    name_of(self.task, word['index']), other))

    def _listen(self, index, peer):
        """Keeps what another process says for `hear`; ends this one where that ends first."""
        end = None  # gone without a word
        with contextlib.suppress(OSError, EOFError):
            message = peer.recv()
            while 'end' not in message:
                self._messages.put(message)
                message = peer.recv()
            end = message['end']
        if end == {}:
            self._messages.put(None)
        elif not self._leaving:
            self._end_too(name_of(self.task, index), end)

    def _end_too(self, name, how):
        """Another process has ended before the job: so must this one, which may wait forever.

        `how`: {'error': line}, {'signal': number}, or None where it is gone without a word.
        """
        status = 1
        if how is None:
            line = 'error: {} is gone; start all again with the same flags to go on'.format(name)
        elif 'signal' in how:
            STOP.follow(how['signal'])
            time.sleep(STOP_SECONDS)  # where this process looks at that, it has ended by then
            line, status = signals.stop_line(how['signal']), 128 + how['signal']
        else:
            line = 'error: {} ended: {}'.format(name, how['error'])
        run_log.last_line(line)
        self.leave(error=line.replace('error: ', ''))
        os._exit(status)  # TensorFlow may be waiting for that process; what is on disk is whole

    def tell(self, **message):
        """Says something to all that this process is connected with."""
        for peer in self._peers.values():
            with contextlib.suppress(OSError):  # whoever listens to it notices the loss
                peer.send(message)

    def hear(self):
        """The chief's next word, a dict; None where the job is finished."""
        while True:
            STOP.check()
            with contextlib.suppress(queue.Empty):
                return self._messages.get(timeout=POLL_SECONDS)

    def words(self):
        """For a worker: yields (word, records, start) of each stage 1 that the chief begins.

        word: {'step', 'update' (the updates done, or None), 'images'}. records: of the steps
        before. start: the checkpoint to start from; None where the stage goes on from its own.
        """
        while True:
            LOG.info('waiting for the chief')
            word = self.hear()
            if word is None:
                return
            yield (word,) + self.wait_for_state(word['step'], word['update'])

    def wait_for_state(self, step, update):
        """Waits until what the chief found on disk shows here too: the shared folder may lag.

        Returns:
            (records, start) as `words` yields them.
        """
        own = update is not None  # the stage goes on from a checkpoint of its own
        folder = checkpoints.classifier_dir(self._model_dir, step if own else step - 1)
        while True:
            STOP.check()
            records = state.finished_steps(self._model_dir)
            found = checkpoints.newest(folder, verify=False)
            if own:
                shows = found and checkpoints.num_updates(found) == update
            else:
                shows = found or step == 0
            if shows and len(records) >= step:
                return records[:step], None if own else found
            time.sleep(POLL_SECONDS)

    def leave(self, **how):
        """Says goodbye to all, why this process ends: error=line or signal=number or nothing."""
        self._leaving = True
        self.tell(end=how)
