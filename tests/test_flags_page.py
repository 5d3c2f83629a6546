"""runtime/flags.md says what the flags say."""
import imagenet_main
from tests.tools import flags_page


def test_the_flags_page_is_up_to_date():
    flags = imagenet_main.FLAGS.get_key_flags_for_module(imagenet_main)
    with open(flags_page.PATH, encoding='utf-8') as file:
        assert file.read() == flags_page.page(flags), 'run python tests/tools/flags_page.py'


def test_each_flag_states_its_default():
    without_default = {'pretrained', 'export_dir'}
    for flag in imagenet_main.FLAGS.get_key_flags_for_module(imagenet_main):
        meaning = flag.help.partition(' (default: ')[0]
        assert meaning.endswith('.'), flag.name
        assert flag.default is not None or 'efault: ' in flag.help or flag.name in without_default
