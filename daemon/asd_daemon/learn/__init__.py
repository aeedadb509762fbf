"""A healthy machine's sound → what it is judged by from then on."""
