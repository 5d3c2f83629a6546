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
import os
import queue
import secrets
import socket
import threading
import time

from runtime import LOG, checkpoints, run_log, signals, state
from runtime.errors import UserError
from runtime.signals import STOP

ENVIRONMENT = 'TF_CONFIG'
POLL_SECONDS = 0.2
CONNECT_SECONDS = 10
SETTLE_SECONDS = 2
STOP_SECONDS = 60  # after which a process no longer waits for itself to stop
# A machine that vanished is noticed after 10 + 3 * 5 seconds; a process that ended, at once.
KEEPALIVE = (('TCP_KEEPIDLE', 10), ('TCP_KEEPINTVL', 5), ('TCP_KEEPCNT', 3))


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
        jobs, task = config.get('cluster', {}), config.get('task', {})
        others = set(jobs) - {'chief', 'worker'}
        if others:
            raise UserError('{}: there is no use for the job {} here; name every machine as a '
                            'worker'.format(ENVIRONMENT, sorted(others)[0]))
        machines = list(jobs.get('chief', [])) + list(jobs.get('worker', []))
        if len(jobs.get('chief', [])) > 1:
            raise UserError('{}: more than one chief'.format(ENVIRONMENT))
        if len(machines) <= 1:
            return None
        own = jobs[task['type']][int(task['index'])]
        if int(task['index']) < 0 or len(set(machines)) < len(machines):
            raise ValueError
        for machine in machines:
            int(machine.rsplit(':', 1)[1])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise UserError(
            '{0}={1} cannot be understood; it should look like {2}'.format(
                ENVIRONMENT, text[:200], json.dumps({
                    'cluster': {'worker': ['host1:2222', 'host2:2222']},
                    'task': {'type': 'worker', 'index': 0}}))) from None
    return Task(machines, machines.index(own), text)


def join(model_dir, stack, look):
    """(task, job): this process's Task and the Cluster, connected; None where it runs alone.

    Args:
        model_dir: the folder that all share.
        stack: the ExitStack that the Cluster is left with.
        look: whether this is but a look around, which each does for itself.
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
    return '{} {}'.format('the chief' if index == 0 else 'worker {}'.format(index),
                          '({})'.format(task.machines[index]))


class _Peer:
    """The connection to another process: one JSON object a line, in both directions."""

    def __init__(self, connection, name):
        connection.settimeout(CONNECT_SECONDS)  # until both know each other
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        self.name = name
        self._connection = connection
        self._lines = connection.makefile('r', encoding='utf-8')

    def known(self):
        """From now on only a loss ends the waiting for the other side's word."""
        self._connection.settimeout(None)

    def send(self, message):
        with contextlib.suppress(OSError):  # whoever reads the connection notices the loss
            self._connection.sendall((json.dumps(message) + '\n').encode('utf-8'))

    def receive(self):
        """The next message; None where the other side is gone."""
        try:
            message = json.loads(self._lines.readline() or 'null')
        except (OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def close(self):
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


class Cluster:
    """The processes of a job of several machines, as one of them sees it.

    Args:
        task: the Task.
        model_dir: the folder that all share.
    """

    def __init__(self, task, model_dir):
        self.task = task
        self.is_chief = task.index == 0
        self._model_dir = model_dir
        self._path = os.path.join(model_dir, state.CLUSTER)
        self._token = None
        self._peers = []
        self._messages = queue.Queue()
        self._leaving = False

    def __enter__(self):
        """Connects the chief with all workers."""
        if self.is_chief:
            self._accept()
        else:
            LOG.info('waiting for %s to show in %s', name_of(self.task, 0), self._path)
            self._connect()
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

    def _add(self, peer):
        self._peers.append(peer)
        peer.known()
        threading.Thread(target=self._listen, args=(peer,), daemon=True).start()

    def _accept(self):
        missing = set(range(1, len(self.task.machines)))
        self._token = secrets.token_hex(16)
        with socket.socket() as listener:
            listener.bind(('', 0))
            listener.listen(len(missing))
            listener.settimeout(POLL_SECONDS)
            address = [self.task.machines[0].rsplit(':', 1)[0].strip('[]'),
                       listener.getsockname()[1]]
            state.make(os.path.dirname(self._path))
            state.write_atomically(self._path, json.dumps(
                {'address': address, 'token': self._token}).encode('utf-8'))
            LOG.info('waiting for %s', ', '.join(name_of(self.task, i) for i in sorted(missing)))
            while missing:
                STOP.check()
                try:
                    connection = listener.accept()[0]
                except socket.timeout:
                    continue
                peer = _Peer(connection, '')
                hello = peer.receive()
                if (not hello or hello.get('token') != self._token
                        or hello.get('index') not in missing):
                    peer.close()
                    continue
                peer.name = name_of(self.task, hello['index'])
                peer.send({'welcome': self._token})
                missing.remove(hello['index'])
                self._add(peer)

    def _connect(self):
        said = None
        while not self._peers:
            STOP.check()
            try:
                with open(self._path, encoding='utf-8') as file:
                    found = json.load(file)
                connection = socket.create_connection(tuple(found['address']), CONNECT_SECONDS)
                peer = _Peer(connection, name_of(self.task, 0))
                peer.send({'index': self.task.index, 'token': found['token']})
                answer = peer.receive()
                if answer and answer.get('welcome') == found['token']:
                    self._add(peer)
                    return
                peer.close()
            except FileNotFoundError:
                pass  # the chief is not there yet
            except (OSError, ValueError, KeyError, TypeError) as error:
                # It is an earlier chief's, or this one's cannot be reached.
                if str(error) != said:
                    said = str(error)
                    LOG.info('%s: nobody there can be reached yet: %s', self._path, said)
            time.sleep(POLL_SECONDS)

    def agree(self, identity):
        """All have to be the same run: `identity`, a dict of what must be equal.

        Raises:
            UserError: a worker was started with other settings, lists or GPUs than the chief.
        """
        if not self.is_chief:
            self._peers[0].send({'index': self.task.index, 'identity': identity})
            return
        for _ in self._peers:
            word = self.hear()
            other = state.differences(identity, word['identity'])
            if other:
                raise UserError('{} was started with other settings or lists: {}'.format(
                    name_of(self.task, word['index']), other))

    def _listen(self, peer):
        while True:
            message = peer.receive()
            if self._leaving:
                return
            if message is None or 'end' in message:
                how = message and message['end']
                if how == {}:
                    self._messages.put(None)
                else:
                    self._end_too(peer.name, how)
                return
            self._messages.put(message)

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
        """The chief's word to all workers."""
        for peer in self._peers:
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
        needed = None
        if update is not None:
            needed = checkpoints.classifier_dir(self._model_dir, step)
        elif step:
            needed = checkpoints.classifier_dir(self._model_dir, step - 1)
        while True:
            STOP.check()
            records = state.finished_steps(self._model_dir)
            found = needed and checkpoints.newest(needed, verify=False)
            if len(records) >= step and (
                    not needed
                    or found and update in (None, checkpoints.num_updates(found))):
                return records[:step], found if update is None else None
            time.sleep(POLL_SECONDS)

    def leave(self, **how):
        """Says goodbye to all, why this process ends: error=line or signal=number or nothing."""
        self._leaving = True
        for peer in self._peers:
            peer.send({'end': how})
            peer.close()
        if self._token is not None:
            with contextlib.suppress(OSError, ValueError):
                with open(self._path, encoding='utf-8') as file:
                    if json.load(file).get('token') == self._token:
                        os.remove(self._path)
