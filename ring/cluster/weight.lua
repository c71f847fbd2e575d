-- Sets the weight of a member, whoever asks. ARGV: now, name, weight. Answers changed, with the members | gone.

if holder(ARGV[2], '') == 'gone' then
  return {'gone'}
end
if amend(ARGV[2], 6, tonumber(ARGV[3])) then
  raise_epoch(0)
end
return answer('changed')
