-- Gives the role of tenant admin to those who could change channels until now: by Django's permission change_channel,
-- their own or a group's. Everybody else stays an agent, the column's default. Run once by migration 0004.
UPDATE tenant_staff SET role = 'tenant_admin'
 WHERE staff_id IN (
   SELECT held.user_id
     FROM (SELECT user_id, permission_id FROM auth_user_user_permissions
           UNION ALL
           SELECT u.user_id, g.permission_id FROM auth_user_groups u JOIN auth_group_permissions g ON g.group_id = u.group_id) held
     JOIN auth_permission p ON p.id = held.permission_id AND p.codename = 'change_channel'
     JOIN django_content_type t ON t.id = p.content_type_id AND t.app_label = 'conversations');
