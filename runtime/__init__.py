"""What a run needs beside the method."""
